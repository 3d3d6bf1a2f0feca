-- Giving walcast up: the slot, the publication and the two roles of the daemon.
--
--   psql -d app -f sql/05-remove.sql
--
-- Variables (psql -v):
--   slot               "walcast"
--   publication        "walcast"
--   replication_role   "walcast_replication"
--   asking_role        "walcast_asking"
--
-- Needs: what made them (but for 06-fence.sql, which goes by its own -v remove=1). Stop walcast first:
-- a slot that is read can't be dropped. Can be applied again at any time. The client roles and the replica identities of your tables are left as they
-- are: the application may use them.

\set ON_ERROR_STOP on
\if :{?slot}
\else
    \set slot walcast
\endif
\if :{?publication}
\else
    \set publication walcast
\endif
\if :{?replication_role}
\else
    \set replication_role walcast_replication
\endif
\if :{?asking_role}
\else
    \set asking_role walcast_asking
\endif

-- First of all: what the slot keeps fills the disk.
SELECT format('SELECT pg_drop_replication_slot(%L)', slot_name)
FROM pg_replication_slots
WHERE slot_name = :'slot'
\gexec

DROP PUBLICATION IF EXISTS :"publication";

-- Their privileges, in this database and on it; they own nothing.
SELECT format('DROP OWNED BY %I', rolname), format('DROP ROLE %I', rolname)
FROM pg_roles
WHERE rolname IN (:'replication_role', :'asking_role')
\gexec
