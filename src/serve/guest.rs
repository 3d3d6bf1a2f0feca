//! A session as the limits know it: where its client comes from, and the seats that it has.

use std::rc::Rc;

use crate::auth::Claims;
use crate::gate::Caller;
use crate::gate::Entry;
use crate::gate::Gate;
use crate::gate::Refused;
use crate::gate::address::Address;
use crate::gate::counts::Seat;
use crate::gate::rates::Pace;
use crate::route::session::Peer;
use crate::route::session::Transport;

/// What a session holds on to while it lives. The session of a test has nothing of it.
#[derive(Debug, Default)]
pub(crate) struct Guest {
    transport: Transport,
    pub(crate) caller: Option<Caller>,
    /// How often it may ask.
    pub(crate) pace: Option<Pace>,
    /// Its connection counts as long as it does.
    _entry: Option<Rc<Entry>>,
    _address: Option<Seat<Address>>,
    subject: Option<Seat<u64>>,
}

impl Guest {
    /// A guest of whom nothing is known but how it is connected.
    pub(crate) fn of_nobody(transport: Transport) -> Guest {
        Guest { transport, ..Guest::default() }
    }

    /// The guest that this caller becomes on its connection.
    ///
    /// # Errors
    ///
    /// [`Refused`] where its address or its subject has as many sessions as it may have.
    pub(crate) fn new(
        gate: &Gate,
        (entry, caller): (&Rc<Entry>, Caller),
        claims: Option<&Claims>,
        transport: Transport,
    ) -> Result<Guest, Refused> {
        let mut guest = Guest {
            transport,
            caller: Some(caller),
            pace: gate.session_pace(),
            _address: entry.seat(caller)?,
            _entry: Some(Rc::clone(entry)),
            subject: None,
        };
        if let Some(claims) = claims {
            guest.claim(gate, claims)?;
        }
        Ok(guest)
    }

    /// Takes the seat of a subject that was not known before.
    ///
    /// # Errors
    ///
    /// [`Refused`] where the subject has as many sessions as it may have.
    pub(crate) fn claim(&mut self, gate: &Gate, claims: &Claims) -> Result<(), Refused> {
        if let Some(subject) = claims.subject().filter(|_| self.subject.is_none()) {
            self.subject = Some(gate.seat_subject(subject)?);
        }
        Ok(())
    }

    /// What operators are told of it.
    pub(crate) fn peer(&self) -> Peer {
        Peer { transport: self.transport, address: self.caller.map(|caller| caller.from) }
    }
}
