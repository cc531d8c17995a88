//! What the events of a declared namespace add to Facts.
//!
//! Invariants: total and pure, also for a declaration that `check` refuses; another namespace's event adds nothing; version 1 of a kind is read by the rules
//! alone, so that a later binary makes the same of it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Declaration, Policy, RegisterRule, Rule, Speaker};
use crate::event::{Event, Value};
use crate::facts::state::{Key, Merged, Phase, Register, State, Written};
use crate::facts::{Delta, Extra, Job, Run, Submit};
use crate::ids::{Dot, JobId};
use crate::lattice::{Lattice, Max, VecMap};
use crate::namespace::report::{self, Reading};
use crate::namespace::{Namespace, NamespaceSpec, opaque, schema};

impl Namespace for Declaration {
    fn spec(&self) -> &NamespaceSpec {
        &self.spec
    }

    fn delta(&self, dot: Dot, event: &Event) -> Delta {
        Self::delta(self, dot, event)
    }
}

impl Declaration {
    /// What `event`, found at `dot`, adds to Facts. The caller sees to it that the event names this declaration.
    #[must_use]
    pub fn delta(&self, dot: Dot, event: &Event) -> Delta {
        if event.ns != self.spec.name {
            return Delta::Nothing;
        }
        if report::is_standard(&event.kind) {
            return self.standard(dot, event);
        }
        if event.ver != 1 {
            return opaque(dot, event);
        }
        let job = match event.ctx.job {
            Some(id) if self.is_submit(&event.kind) => submitted(id, dot, event, self).map(|job| (id, job)),
            Some(id) => self.ruled(dot, event).map(|job| (id, job)),
            None => None,
        };
        job.map_or(Delta::Nothing, |(id, job)| Delta::Job(id, Box::new(job)))
    }

    /// A report as in every namespace, and what the rule about it adds. A spec that does not fit the rule takes nothing from the report.
    fn standard(&self, dot: Dot, event: &Event) -> Delta {
        let mut run = match report::read(event) {
            Reading::Run(run) => run,
            Reading::Unfit => return Delta::Nothing,
            Reading::Unknown => return opaque(dot, event),
        };
        let (Some(id), Some(no)) = (event.ctx.job, event.ctx.grant) else {
            return Delta::Nothing;
        };
        if let Some(rule) = self.rule(&event.kind)
            && schema::fits(&rule.fields, &event.spec).is_ok()
        {
            let mut extra = run.extra.take().map(|extra| *extra).unwrap_or_default();
            extra.state = self.state(rule, dot, event);
            run = run.with(extra);
        }
        Delta::Job(id, Box::new(Job::reported(no, dot.log.node, run)))
    }

    fn ruled(&self, dot: Dot, event: &Event) -> Option<Job> {
        let rule = self.rule(&event.kind)?;
        let outcome = rule.read(&event.spec).ok()?;
        let state = self.state(rule, dot, event);
        match (rule.by, event.ctx.grant) {
            (Speaker::Executor, Some(no)) => {
                let has_tasks = !event.ctx.tasks.is_empty();
                let run = match (&rule.phase, outcome) {
                    // An end of no tasks is none.
                    (_, Some(_)) if !has_tasks => return None,
                    (_, Some(outcome)) => report::run(event, Some(outcome)),
                    (Some(_), None) => report::run(event, None),
                    (None, None) => Run::default(),
                };
                let run = run.with(Extra { state, ..Extra::default() });
                (run != Run::default()).then(|| Job::reported(no, dot.log.node, run))
            }
            (Speaker::Anyone, None) => (!state.is_empty()).then(|| Job::remarked(state)),
            (Speaker::Executor, None) | (Speaker::Anyone, Some(_)) => None,
        }
    }

    fn state(&self, rule: &Rule, dot: Dot, event: &Event) -> State {
        let mut state = State::default();
        if let Some(name) = &rule.phase
            && let Some(rank) = self.phases.iter().position(|phase| phase == name)
        {
            let rank = u16::try_from(rank).unwrap_or(u16::MAX);
            state.phases = VecMap::one(Phase { rank, name: name.clone() }, event.ctx.tasks.clone());
        }
        for register in &rule.registers {
            if let Some(value) = rule.value(&register.field, &event.spec)
                && let Some(merged) = written(register, value, dot, event)
            {
                let one = VecMap::one(Key(register.register.clone()), Merged(Some(merged)));
                let _ = state.registers.join(one);
            }
        }
        for (key, value) in &rule.labels {
            let label = Written { hlc: event.hlc, dot, value: Value::Text(value.clone()) };
            let _ = state.labels.join(VecMap::one(Key(key.clone()), Max::new(label)));
        }
        state
    }
}

/// A job lies in its owner's log; nobody else can submit under that id.
fn submitted(id: JobId, dot: Dot, event: &Event, declaration: &Declaration) -> Option<Job> {
    let is_owned = id.log == dot.log && !event.ctx.tasks.is_empty();
    is_owned.then(|| Job::submitted(Submit::new(event, declaration.handler())))
}

/// What one event writes into a register; nothing where a number is needed and there is none.
fn written(rule: &RegisterRule, value: &Value, dot: Dot, event: &Event) -> Option<Register> {
    let number = match value {
        Value::Int(number) => Some(*number),
        Value::Bool(_) | Value::Text(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => None,
    };
    match rule.policy {
        Policy::Max => number.map(Register::Max),
        Policy::Last => Some(Register::Last(Written { hlc: event.hlc, dot, value: value.clone() })),
        Policy::Set => Some(Register::Set(BTreeSet::from([value.clone()]))),
        Policy::Counter => number.map(|number| Register::Counter(BTreeMap::from([(dot, number)]))),
    }
}
