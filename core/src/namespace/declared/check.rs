//! What a declaration must be before it is registered.
//!
//! Invariants: every refusal says where, what was expected and what was found. Lists ascend, so one meaning has one encoding.
//! Does not: compare a declaration with others of its name (registration does).

use core::mem::discriminant;
use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::codec::too_large;
use super::{Declaration, DeclarationError, Ends, PROCESS, Policy, RELAY, Rule, Speaker, SubmitKinds};
use crate::limits;
use crate::namespace::schema::describe;
use crate::namespace::{Durability, FieldReq, FieldType, job_fields, report};

/// Names that users cannot declare.
const RESERVED: [&str; 4] = ["batch", "monitor", "simulation", "sys"];

type Checked = Result<(), DeclarationError>;

pub(super) fn unfit(place: &[&str], expected: impl Into<String>, found: impl Into<String>) -> DeclarationError {
    let place = place.iter().map(SmolStr::new).collect();
    DeclarationError { place, expected: expected.into(), found: found.into() }
}

fn demand(holds: bool, place: &[&str], expected: &str, found: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(unfit(place, expected, found())) }
}

fn quoted(text: &str) -> String {
    format!("`{text}`")
}

impl Declaration {
    /// Checks all that can be said of a declaration by itself.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Checked {
        self.check_head()?;
        self.check_phases()?;
        check_fields(&["fields"], &self.spec.schema)?;
        check_common(&self.spec.schema)?;
        self.check_handler()?;
        if let SubmitKinds::One(kind) = &self.submit {
            check_kind(&["submit"], kind, &self.spec.name)?;
            let place = ["submit"];
            demand(!report::is_standard(kind), &place, "a kind other than the standard reports", || quoted(kind))?;
        }
        self.check_rules()?;
        let bytes = self.to_bytes().len();
        if bytes > limits::DECLARATION_BYTES_MAX { Err(too_large(bytes)) } else { Ok(()) }
    }

    fn check_head(&self) -> Checked {
        let name = &self.spec.name;
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
        let is_short = (1..=limits::DECLARED_NAME_BYTES_MAX).contains(&name.len());
        let expected = "1 to 64 lower-case letters, digits, `_` and `-`";
        demand(is_short && name.bytes().all(is_name), &["name"], expected, || quoted(name))?;
        let is_free = !RESERVED.contains(&name.as_str());
        demand(is_free, &["name"], "a name that is not built in", || quoted(name))?;
        demand(self.version >= 1, &["version"], "integer of at least 1", || self.version.to_string())?;
        let is_logged = self.spec.durability == Durability::Logged;
        demand(is_logged, &["durability"], "`logged`", || {
            "`ephemeral`, which is not supported for declared namespaces".into()
        })
    }

    fn check_phases(&self) -> Checked {
        let place = ["phases"];
        check_count(&place, self.phases.len(), limits::PHASES_MAX)?;
        for (at, phase) in self.phases.iter().enumerate() {
            check_name(&place, phase)?;
            demand(!self.phases[..at].contains(phase), &place, "each phase once", || format!("`{phase}` twice"))?;
        }
        Ok(())
    }

    fn check_handler(&self) -> Checked {
        let handler = self.spec.handler_type.as_str();
        let place = ["handler"];
        demand(handler == RELAY || handler == PROCESS, &place, "`relay` or `process`", || quoted(handler))?;
        if handler == RELAY {
            return Ok(());
        }
        let place = ["fields", "command"];
        let expected = "a required list of at least 1 text, as handler `process` needs";
        let Some(command) = self.spec.schema.iter().find(|field| field.key == "command") else {
            return Err(unfit(&["handler"], "`relay`, or `process` and a field `command`", "`process` without it"));
        };
        let is_list = matches!(command.field_type, FieldType::Texts { min: 1.., .. });
        demand(is_list, &place, expected, || command.field_type.to_string())?;
        demand(command.is_always_there(), &place, expected, || "an optional one".into())
    }

    fn check_rules(&self) -> Checked {
        check_count(&["rules"], self.rules.len(), limits::DECLARED_ITEMS_MAX)?;
        check_ascending(&["rules"], self.rules.iter().map(|rule| &rule.kind))?;
        let mut policies = BTreeMap::new();
        for rule in &self.rules {
            self.check_rule(rule)?;
            for register in &rule.registers {
                let place = ["rules", &rule.kind, "registers", &register.register, "merge"];
                let (policy, first) = *policies.entry(&register.register).or_insert((register.policy, &rule.kind));
                if policy != register.policy {
                    let expected = format!("`{}`, as in rule `{first}`", policy.word());
                    return Err(unfit(&place, expected, quoted(register.policy.word())));
                }
            }
        }
        Ok(())
    }

    fn check_rule(&self, rule: &Rule) -> Checked {
        let place = ["rules", rule.kind.as_str()];
        check_kind(&place, &rule.kind, &self.spec.name)?;
        let submits = self.is_submit(&rule.kind) && !report::is_standard(&rule.kind);
        demand(!submits, &place, "a kind that submits no jobs", || quoted(&rule.kind))?;
        let at = |part| ["rules", rule.kind.as_str(), part];
        check_fields(&at("fields"), &rule.fields)?;
        if let Some(phase) = &rule.phase
            && !self.phases.contains(phase)
        {
            let known: Vec<String> = self.phases.iter().map(|phase| quoted(phase)).collect();
            return Err(unfit(&at("phase"), format!("one of the phases [{}]", known.join(", ")), quoted(phase)));
        }
        if rule.outcome.is_some() {
            let by_executor = rule.by == Speaker::Executor;
            demand(by_executor, &at("outcome"), "none in a rule by anyone: only executors end tasks", || "one".into())?;
        }
        if let Some(Ends::ExitFrom(key)) = &rule.outcome {
            check_source(&at("outcome"), rule, key, true)?;
            let is_there = rule.field(key).is_some_and(FieldReq::is_always_there);
            demand(is_there, &at("outcome"), "a field that is required or has a default", || quoted(key))?;
        }
        check_registers(rule)?;
        check_labels(rule)?;
        if report::is_standard(&rule.kind) { check_standard(rule) } else { Ok(()) }
    }
}

fn check_registers(rule: &Rule) -> Checked {
    let place = ["rules", rule.kind.as_str(), "registers"];
    check_count(&place, rule.registers.len(), limits::DECLARED_ITEMS_MAX)?;
    check_ascending(&place, rule.registers.iter().map(|register| &register.register))?;
    for register in &rule.registers {
        let name = register.register.as_str();
        check_name(&["rules", &rule.kind, "registers", name], name)?;
        let needs_number = match register.policy {
            Policy::Max | Policy::Counter => true,
            Policy::Last | Policy::Set => false,
        };
        check_source(&["rules", &rule.kind, "registers", name, "from"], rule, &register.field, needs_number)?;
    }
    Ok(())
}

fn check_labels(rule: &Rule) -> Checked {
    let place = ["rules", rule.kind.as_str(), "labels"];
    check_count(&place, rule.labels.len(), limits::DECLARED_ITEMS_MAX)?;
    check_ascending(&place, rule.labels.iter().map(|(key, _)| key))?;
    for (key, value) in &rule.labels {
        let place = ["rules", &rule.kind, "labels", key];
        check_name(&place, key)?;
        let fits = value.len() <= limits::LABEL_BYTES_MAX;
        demand(fits, &place, "text of at most 256 bytes", || format!("text of {} bytes", value.len()))?;
    }
    Ok(())
}

/// Executors here write these kinds without knowing any rule, and how they end tasks is fixed.
fn check_standard(rule: &Rule) -> Checked {
    let at = |part| ["rules", rule.kind.as_str(), part];
    let by_executor = rule.by == Speaker::Executor;
    demand(by_executor, &at("by"), "`executor` for a standard report", || "`anyone`".into())?;
    demand(rule.outcome.is_none(), &at("outcome"), "none for a standard report, which says it itself", || {
        "one".into()
    })?;
    for field in &rule.fields {
        let place = ["rules", &rule.kind, "fields", &field.key];
        let is_free = !report::FIELDS.contains(&field.key.as_str());
        demand(is_free, &place, "another name than a standard report's own fields have", || quoted(&field.key))?;
        let is_optional = !field.required || field.default.is_some();
        demand(is_optional, &place, "an optional field in a standard report", || "a required one".into())?;
    }
    Ok(())
}

/// The field that a register or an outcome reads.
fn check_source(place: &[&str], rule: &Rule, key: &str, needs_number: bool) -> Checked {
    let Some(field) = rule.field(key) else {
        return Err(unfit(place, format!("a field of rule `{}`", rule.kind), quoted(key)));
    };
    let is_number = matches!(field.field_type, FieldType::Int { .. });
    let expected = "a field of type int";
    demand(is_number || !needs_number, place, expected, || format!("`{key}`, {}", field.field_type))
}

fn check_fields(place: &[&str], fields: &[FieldReq]) -> Checked {
    check_count(place, fields.len(), limits::DECLARED_ITEMS_MAX)?;
    check_ascending(place, fields.iter().map(|field| &field.key))?;
    for field in fields {
        let place = [place, &[field.key.as_str()]].concat();
        check_name(&place, &field.key)?;
        let is_possible = match field.field_type {
            FieldType::Int { min, max } => min <= max,
            FieldType::Texts { min, max } => min <= max,
            FieldType::Bool | FieldType::Text { .. } | FieldType::Bytes { .. } | FieldType::TextMap => true,
        };
        demand(is_possible, &place, "bounds that some value fits", || field.field_type.to_string())?;
        if let Some(value) = &field.default
            && !field.field_type.admits(value)
        {
            let place = [&place[..], &["default"]].concat();
            return Err(unfit(&place, field.field_type.to_string(), describe(value)));
        }
    }
    Ok(())
}

/// What every job may have keeps its type; a declaration may make it required, bound it or give it a default.
fn check_common(fields: &[FieldReq]) -> Checked {
    for common in job_fields() {
        let Some(field) = fields.iter().find(|field| field.key == common.key) else {
            continue;
        };
        let is_same = discriminant(&field.field_type) == discriminant(&common.field_type);
        let is_fit = field.default.as_ref().is_none_or(|value| common.field_type.admits(value));
        if !is_same || !is_fit {
            let expected = format!("{}, as for every job", common.field_type);
            let found = match &field.default {
                Some(value) if is_same => format!("default {}", describe(value)),
                Some(_) | None => field.field_type.to_string(),
            };
            return Err(unfit(&["fields", &field.key], expected, found));
        }
    }
    Ok(())
}

fn check_kind(place: &[&str], kind: &str, own: &str) -> Checked {
    if let Some((namespace, _)) = kind.split_once(['/', '.', ':']) {
        let expected = format!("a kind of namespace `{own}`, named without a namespace");
        return Err(unfit(place, expected, format!("`{kind}`, which touches namespace `{namespace}`")));
    }
    let is_short = (1..=limits::DECLARED_NAME_BYTES_MAX).contains(&kind.len());
    let is_word = kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    demand(is_short && is_word, place, "a kind of 1 to 64 letters, digits, `_` and `-`", || quoted(kind))
}

fn check_name(place: &[&str], name: &str) -> Checked {
    let is_short = (1..=limits::DECLARED_NAME_BYTES_MAX).contains(&name.len());
    let is_word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    demand(is_short && is_word, place, "a name of 1 to 64 letters, digits, `_`, `-` and `.`", || quoted(name))
}

fn check_count(place: &[&str], count: usize, max: usize) -> Checked {
    demand(count <= max, place, &format!("at most {max} entries"), || count.to_string())
}

fn check_ascending<'a>(place: &[&str], names: impl Iterator<Item = &'a SmolStr>) -> Checked {
    let mut last: Option<&SmolStr> = None;
    for name in names {
        match last {
            Some(last) if last == name => return Err(unfit(place, "each name once", format!("`{name}` twice"))),
            Some(last) if last > name => {
                return Err(unfit(place, "names in ascending order", format!("`{last}` before `{name}`")));
            }
            Some(_) | None => last = Some(name),
        }
    }
    Ok(())
}
