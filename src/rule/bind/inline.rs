//! Calls of functions of the database: the arguments are bound where the call stands, the body where
//! it sees nothing but these, with its owner's rights where it runs as its owner.

use crate::change::types::Collation;
use crate::rule::bind::Binder;
use crate::rule::bind::Collated;
use crate::rule::bind::InPolicy;
use crate::rule::bind::Typed;
use crate::rule::bind::logic::junction;
use crate::rule::bind::logic::not;
use crate::rule::bind::names::Names;
use crate::rule::error::RuleError;
use crate::rule::expression::Node;
use crate::rule::expression::query::Inlined;
use crate::rule::expression::query::Parameter;
use crate::rule::expression::query::Returns;
use crate::rule::of::Of;
use crate::rule::term::Term;

const TEXT: u32 = 25;
const VARCHAR: u32 = 1043;

/// What a body knows of its call.
pub(in crate::rule::bind) struct Frame<'a> {
    call: &'a Inlined,
    arguments: Vec<Typed>,
    /// The values of its variables.
    locals: Vec<(&'a str, Typed)>,
    /// The collation of its arguments.
    collated: Collated,
}

impl Frame<'_> {
    /// What is returned, which has the collation of the arguments, and not that of what it is made
    /// of. (Of one that is not deterministic nothing is made.)
    pub(in crate::rule::bind) fn returned(&self, typed: Typed) -> Typed {
        match typed.collated {
            Collated::Column(Collation::Nondeterministic) => typed,
            _ if typed.is_collated() => typed.with(self.collated),
            _ => typed,
        }
    }
}

impl Typed {
    /// Whether comparing it depends on a collation.
    fn is_collated(&self) -> bool {
        self.of.is_text() || matches!(self.of, Of::Unknown | Of::Array(_))
    }
}

impl Binder<'_> {
    pub(in crate::rule::bind) fn inlined(
        &self,
        call: &Inlined,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let Returns::Value(result) = &call.returns else {
            let reason = "it returns rows, which are decided only in FROM, and as all that a \
                          subquery selects";
            return Err(RuleError::unsupported(token, reason, ""));
        };
        let (frame, role, nulls) = self.called(call, token)?;
        let names = Names::of_body(&frame);
        let inside = Binder {
            names: &names,
            claims: self.claims,
            policy: self.policy.map(|policy| InPolicy { role, ..policy }),
            is_positive: self.is_positive,
        };
        let body = frame.returned(self.implicitly(inside.node(&call.body)?, result, token)?);
        if !call.is_strict || nulls == Term::boolean(false) {
            return Ok(body);
        }
        let term = if self.is_positive && body.of == Of::Bool {
            junction(vec![not(nulls), body.term], false)
        } else {
            Term::Case { arms: Box::new([[nulls, Term::NULL]]), otherwise: Box::new(body.term) }
        };
        Ok(Typed { term, ..body })
    }

    /// What the body of a call knows, with whose rights it runs, and whether an argument is NULL.
    pub(in crate::rule::bind) fn called<'c>(
        &self,
        call: &'c Inlined,
        token: &Node,
    ) -> Result<(Frame<'c>, &'c str, Term), RuleError>
    where
        Self: 'c,
    {
        let Some(policy) = self.policy else {
            return Err(RuleError::unsupported(token, "a rule calls no such function", ""));
        };
        if !call.callers.iter().any(|known| &**known == policy.role) {
            let reason = format!("{} may not call it", policy.role);
            return Err(RuleError::raises(&*call.name, reason));
        }
        let plain = Binder { is_positive: false, ..*self };
        let mut arguments = Vec::new();
        for (parameter, argument) in call.parameters.iter().zip(&call.arguments) {
            arguments.push(plain.implicitly(plain.node(argument)?, parameter, argument)?);
        }
        if call.arguments.len() != call.parameters.len() {
            return Err(RuleError::unsupported(token, "it is called with defaults", ""));
        }
        // A body compares all texts by the one collation that its arguments have.
        let mut collated = Collated::Default;
        for text in arguments.iter().filter(|it| it.is_collated()) {
            collated = collated.with(text.collated, token)?;
        }
        for text in arguments.iter_mut().filter(|it| it.is_collated()) {
            text.collated = collated;
        }
        let is_null = |typed: &Typed| match &typed.term {
            Term::Constant(value) => Term::boolean(value.is_none()),
            term => Term::IsNull(Box::new(term.clone())),
        };
        let nulls = junction(arguments.iter().map(is_null).collect(), true);
        let role = call.owner.as_deref().unwrap_or(policy.role);
        let mut frame = Frame { call, arguments, locals: Vec::new(), collated };
        for (name, value) in &call.locals {
            let names = Names::of_body(&frame);
            let policy = Some(InPolicy { role, ..policy });
            let inside = Binder { names: &names, policy, is_positive: false, claims: self.claims };
            let typed = inside.node(value)?;
            // PostgreSQL computes it whether it is used or not.
            if typed.term.may_fault() && !self.is_anybody() {
                let reason = "a variable in it may be an error for some row";
                return Err(RuleError::unsupported(token, reason, ""));
            }
            frame.locals.push((name, typed));
        }
        Ok((frame, role, nulls))
    }

    /// A value where a function takes or gives one of this type.
    pub(in crate::rule::bind) fn implicitly(
        &self,
        typed: Typed,
        to: &Parameter,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let typed = match &to.type_name {
            Some(name) if typed.of == Of::Unknown => {
                let of = self.target(name, token)?;
                self.coerce(typed, &of, token)?
            }
            _ => typed,
        };
        let from = typed.of.oid();
        let of = match (from, to.of) {
            (Some(from), to) if from == to => return Ok(typed),
            (Some(VARCHAR), TEXT) => Of::Text,
            (Some(TEXT), VARCHAR) => Of::Varchar,
            _ => match (&typed.of, to.of) {
                (Of::Int2, 23) => Of::Int4,
                (Of::Int2 | Of::Int4, 20) => Of::Int8,
                _ => {
                    let reason =
                        format!("{} stands where the type with OID {} is", typed.of, to.of);
                    return Err(RuleError::unsupported(token, reason, ""));
                }
            },
        };
        Ok(Typed { of, ..typed })
    }

    /// A parameter of the function in whose body this stands; absent where none has this name.
    pub(in crate::rule::bind) fn parameter(
        &self,
        qualifier: Option<&str>,
        name: &str,
        token: &Node,
    ) -> Result<Option<Typed>, RuleError> {
        let Some(frame) = self.names.frame() else { return Ok(None) };
        let local = frame.locals.iter().find(|(local, _)| *local == name);
        if let Some((_, typed)) = local.filter(|_| qualifier.is_none()) {
            if self.names.has_alias(name) {
                let reason = "it could be a variable or a table's row";
                return Err(RuleError::unsupported(token, reason, ""));
            }
            return Ok(Some(typed.clone()));
        }
        let own = frame.call.name.rsplit('.').next();
        if qualifier.is_some() && qualifier != own {
            return Ok(None);
        }
        let place = frame.call.parameters.iter().position(|parameter| &*parameter.name == name);
        if place.is_some() && self.names.has_alias(name) {
            let reason = "it could be a parameter or a table's row";
            return Err(RuleError::unsupported(token, reason, ""));
        }
        Ok(place.and_then(|place| frame.arguments.get(place)).cloned())
    }

    /// Checks that a column's name is not a parameter's, too, where that is an error.
    pub(in crate::rule::bind) fn check_column(&self, name: &str) -> Result<(), RuleError> {
        let Some(frame) = self.names.frame() else { return Ok(()) };
        let columns = match &frame.call.returns {
            Returns::Value(_) => &[],
            Returns::Rows(columns) => &**columns,
        };
        let parameters = frame.call.parameters.iter().chain(columns);
        let locals = frame.call.locals.iter().map(|(local, _)| &**local);
        let mut variables = parameters.map(|variable| &*variable.name).chain(locals);
        if !frame.call.columns_first && variables.any(|variable| variable == name) {
            let reason = "it could be a variable's or a column's name";
            return Err(RuleError::raises(name, reason));
        }
        Ok(())
    }

    pub(in crate::rule::bind) fn numbered(
        &self,
        number: usize,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let frame = self.names.frame();
        let argument = frame.and_then(|frame| frame.arguments.get(number.checked_sub(1)?));
        let none = || RuleError::unsupported(token, "there is no such parameter", "");
        argument.cloned().ok_or_else(none)
    }
}
