//! Who may see which rows: the policies of `schema`, told once more in a few lines that share nothing
//! with walcast, over what the members were before a transaction and after it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::filter::Verdict;
use crate::schema::GUARDED;
use crate::schema::ROLE;
use crate::schema::STAFF;
use crate::truth;
use crate::truth::Change;
use crate::truth::Kind;
use crate::truth::Policy;
use crate::truth::Row;
use crate::truth::Transaction;

/// Whom a client's token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) role: &'static str,
    pub(crate) sub: &'static str,
    /// The writer whose papers it sees in any case.
    pub(crate) writer: i64,
}

/// Those who have clients; memberships are granted and revoked to them, and to others.
pub(crate) const PEOPLE: [Identity; 4] = [
    Identity { role: ROLE, sub: "ann", writer: 1 },
    Identity { role: ROLE, sub: "bob", writer: 2 },
    Identity { role: ROLE, sub: "cid", writer: 0 },
    Identity { role: STAFF, sub: "ann", writer: 1 },
];

/// The secret that their tokens are signed with.
pub(crate) const SECRET: &[u8] = b"a secret of the tests, of thirty-two bytes or more";

impl Identity {
    /// A token that says who it is.
    pub(crate) fn token(&self) -> String {
        let claims = serde_json::json!({
            "role": self.role, "sub": self.sub, "writer": self.writer, "exp": 4_102_444_800_u64,
        });
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    }
}

/// Whose memberships count for a table's rows; none where they do not.
pub(crate) fn member(table: &str, identity: Option<Identity>) -> Option<&'static str> {
    let identity = identity.filter(|it| it.role == ROLE && GUARDED.contains(&table));
    identity.map(|identity| identity.sub)
}

/// Whether Postgres is asked about a table's rows.
pub(crate) fn is_asked(table: &str) -> bool {
    table == "asks"
}

/// Whether it is the policy that is altered now and then.
pub(crate) fn is_altered(table: &str, identity: Option<Identity>) -> bool {
    table == "docs" && identity.is_some_and(|identity| identity.role == STAFF)
}

/// The regions that one person is an active member of, and those where the membership rests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Teams(BTreeMap<i64, bool>);

impl Teams {
    /// Takes what a transaction does to the members; `false` where it does nothing to them.
    pub(crate) fn take(&mut self, sub: &str, transaction: &Transaction) -> bool {
        let mut touched = false;
        for change in transaction.changes.iter().filter(|change| &*change.table == "members") {
            touched = true;
            self.take_one(sub, change);
        }
        touched
    }

    fn take_one(&mut self, sub: &str, change: &Change) {
        if change.kind == Kind::Truncate {
            return self.0.clear();
        }
        let team = |row: &Row| truth::text(row, "team").unwrap().parse::<i64>().unwrap();
        let is_own = |row: &&Row| truth::text(row, "who").as_deref() == Some(sub);
        if let Some(old) = change.old.as_ref().filter(is_own) {
            self.0.remove(&team(old));
        }
        if let Some(new) = change.new.as_ref().filter(is_own) {
            let active = truth::text(new, "active").as_deref() == Some("true");
            self.0.insert(team(new), active);
        }
    }

    fn has(&self, team: i64) -> bool {
        self.0.get(&team) == Some(&true)
    }

    /// The regions in which the active memberships differ.
    pub(crate) fn differ(&self, other: &Teams) -> BTreeSet<i64> {
        let all = self.0.keys().chain(other.0.keys());
        all.copied().filter(|team| self.has(*team) != other.has(*team)).collect()
    }
}

/// Whether a row may be seen, by the table's policies.
pub(crate) fn decide(
    table: &str,
    identity: Option<Identity>,
    row: &Row,
    teams: &Teams,
    policy: &Policy,
) -> Verdict {
    let Some(identity) = identity.filter(|_| GUARDED.contains(&table)) else {
        return Verdict::Admits;
    };
    let number = |column| truth::text(row, column).map(|text| text.parse::<i64>().unwrap());
    let is = |known: Option<bool>| match known {
        Some(true) => Verdict::Admits,
        Some(false) => Verdict::Rejects,
        None => Verdict::Undecided,
    };
    let status = truth::text(row, "status");
    let of_team = number("region").map(|region| teams.has(region));
    let is_web = identity.role == ROLE;
    match table {
        "docs" if is_web => is(of_team),
        "docs" => is(status.map(|status| policy.statuses.contains(&status))),
        "papers" => {
            let own = number("writer").map(|writer| writer == identity.writer);
            let seen =
                if is_web { of_team.zip(own).map(|(team, own)| team || own) } else { Some(true) };
            let done = status.zip(number("id")).map(|(status, id)| status != "done" || id < 0);
            is(seen.zip(done).map(|(seen, done)| seen && done))
        }
        _ if is_web => is(status.zip(of_team).map(|(status, team)| status == "open" || team)),
        _ => Verdict::Admits,
    }
}

/// The statement of a change of memberships: of one who has clients, or of somebody else, whom it
/// is to cost nothing.
pub(crate) fn statement(who: &str, team: u64, other: u64, kind: u64) -> String {
    match kind {
        0..=3 => format!(
            "INSERT INTO members VALUES ({team}, '{who}', true) \
             ON CONFLICT (team, who) DO UPDATE SET active = NOT members.active"
        ),
        4 | 5 => format!(
            "INSERT INTO members VALUES ({team}, '{who}', true) \
             ON CONFLICT (team, who) DO UPDATE SET active = true"
        ),
        6 | 7 => format!("DELETE FROM members WHERE team = {team} AND who = '{who}'"),
        8 => format!("UPDATE members SET active = false WHERE team = {team} AND who = '{who}'"),
        _ => format!(
            "UPDATE members SET team = {other} WHERE team = {team} AND who = '{who}' \
             AND NOT EXISTS (SELECT FROM members WHERE team = {other} AND who = '{who}')"
        ),
    }
}
