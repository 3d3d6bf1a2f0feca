//! Judging subscriptions, at their beginning and again: after DDL, after a change of grants or of
//! the configuration, under new claims.

use std::rc::Rc;
use std::sync::Arc;

use crate::auth::Claims;
use crate::catalog::snapshot::Snapshot;
use crate::change::id::RelationId;
use crate::route::encode::Encode;
use crate::route::encode::Notice;
use crate::route::group::Shape;
use crate::route::groups::Attachment;
use crate::route::plan;
use crate::route::plan::Context;
use crate::route::plan::Plan;
use crate::route::plan::Refusal;
use crate::route::policy::Policies;
use crate::route::session::SessionKey;
use crate::route::session::Subscription;
use crate::route::shard::Settings;
use crate::route::shard::Shard;
use crate::route::shard::Shared;
use crate::route::subscription::Request;
use crate::route::throttle::Keying;

impl Shared {
    /// What planning looks at.
    pub(crate) fn context<'a>(&'a self, catalog: &'a Snapshot) -> Context<'a> {
        Context { catalog, policies: &self.policies, replicas: Some(&self.replicas) }
    }
}

impl Shard {
    /// Takes other settings and policies. Nobody is dropped; every subscription is judged again
    /// before the next change is matched, and those that are no longer allowed end.
    ///
    /// What a client was told when it came (pings, silence), and the outbox that it has, stay. So
    /// does how large a frame may be. The ring holds more or less from the next transaction on.
    pub fn reconfigure(&mut self, settings: Settings, policies: Arc<Policies>) {
        let Settings { frame_bytes_max, steps, .. } = self.settings;
        self.settings = Settings { frame_bytes_max, steps, ..settings };
        if let Some(ring) = &mut self.ring {
            ring.resize(settings.ring);
        }
        self.budget.allow(settings.outbox_total_bytes_max);
        self.shared.policies = policies;
        self.judge_anew();
    }

    /// Has every subscription judged again before the next change is matched.
    pub(crate) fn judge_anew(&mut self) {
        self.judge_again = true;
        self.wake.notify_one();
    }

    /// Judges the session's subscriptions again (those on `relation`, or all), by the claims,
    /// grants and policies of now. Those that are no longer allowed end, and the client is told.
    pub(crate) fn replan_session(&mut self, key: SessionKey, relation: Option<RelationId>) {
        let Some(session) = self.session(key) else { return };
        let concerned = |subscription: &&Subscription| {
            let group = self.groups.get(subscription.attachment.group);
            let table = group.map(|group| group.shape.projection.relation.id);
            relation.is_none() || table == relation
        };
        let ids: Vec<Rc<str>> = session
            .subscriptions
            .iter()
            .filter(concerned)
            .map(|subscription| Rc::clone(&subscription.id))
            .collect();
        for id in ids {
            if let Err(refusal) = self.replan_subscription(key, &id) {
                self.end_subscription(key, &id);
                self.shared.metrics.refused(refusal.code());
                self.notify(key, &Notice::Refused { id: &id, refusal: &refusal });
            }
        }
    }

    fn replan_subscription(&mut self, key: SessionKey, id: &Rc<str>) -> Result<(), Refusal> {
        let Some(session) = self.session(key) else { return Ok(()) };
        let Some(subscription) = session.subscription(id) else { return Ok(()) };
        let claims = session.claims.clone().ok_or(Refusal::Unauthenticated)?;
        let request = subscription.request.clone();
        let (old, was_live) = (subscription.attachment, subscription.member_at.is_some());
        let mut plan = self.plan(&claims, &request)?;
        let keying = plan.keying.take();
        let dialect = session.dialect;
        let shape = self.shape(plan, &request, dialect);
        if self.groups.get(old.group).is_some_and(|group| group.shape == shape) {
            return Ok(());
        }
        let new = self.attach(shape, id, keying);
        let was_asked = self.asked_place(key, id).filter(|_| !self.is_asked_in_snapshot(key, id));
        self.go_behind(key, id);
        self.groups.detach(old);
        let session = self.session_mut(key);
        if let Some(subscription) = session.and_then(|it| it.subscription_mut(id)) {
            subscription.attachment = new;
        }
        // What a throttle holds back was decided by the rule of before.
        let reads_again = !self.is_in_snapshot(key, id) && self.read_again(key, id);
        match was_live {
            _ if reads_again => {}
            _ if let Some(place) = was_asked => self.read_from(key, id, place, false),
            true => self.go_live(key, id),
            false => self.restart_snapshot(key, id),
        }
        Ok(())
    }

    /// Plans for the shape in which the stream now sends the table, or, where nobody is subscribed
    /// to it yet, for the shape that the catalogue knows.
    pub(crate) fn plan(&self, claims: &Claims, request: &Request) -> Result<Plan, Refusal> {
        let catalog = self.shared.catalog.current();
        let context = self.shared.context(&catalog);
        let table = catalog.table(&request.table.schema, &request.table.name);
        let current = table.and_then(|table| self.groups.table(table.relation.id));
        match current {
            Some(current) => plan::plan_for(context, claims, request, &current.relation),
            None => plan::plan(context, claims, request),
        }
    }

    /// Adds a subscription to the group of its shape, as the rows of other tables are now.
    pub(crate) fn attach(
        &mut self,
        shape: Shape,
        id: &Rc<str>,
        keying: Option<Keying>,
    ) -> Attachment {
        let replicas = Arc::clone(&self.shared.replicas);
        let (at, moment) = self.moment();
        self.groups.attach(shape, id, keying, &replicas.view(at, moment))
    }

    pub(crate) fn shape(
        &mut self,
        plan: Plan,
        request: &Request,
        dialect: &'static dyn Encode,
    ) -> Shape {
        let projection = self.groups.share(plan.projection);
        Shape { rule: plan.rule, asked: plan.asked, projection, events: request.events, dialect }
    }
}
