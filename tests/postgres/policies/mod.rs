//! Row-level security, decided here and by PostgreSQL: never a row shown here that is hidden there;
//! and what is decided here at all is decided alike.
//!
//! `WALCAST_SEED` sets the seed, which is printed; `POLICY_VERDICTS` how many verdicts the random
//! policies are compared in.

mod asked;
mod crowd;
mod delivery;
mod demo;
mod explained;
mod generate;
mod membership;
mod oracle;
mod remembered;
mod roles;
mod shapes;
mod subject;
mod unset;
