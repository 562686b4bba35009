//! The policy language: what containers may not do, read from TOML, checked, said in words and
//! compiled to the tables that the kernel half looks up.
//!
//! Pure computation, no kernel needed. A file that is wrong gives [`Faults`], each one line with
//! its place; [`parse`] never panics and is bounded whatever it is given.
//!
//! **Precedence.** Every policy that selects a container holds for it, and each is asked by
//! itself. In one policy the most specific statement decides, be it a denial or an allow: the
//! longer path, the longer network prefix, of one network the fewer ports and protocols, the
//! device with more of its numbers, of names, namespaces and capabilities the statement that
//! stands for fewer of them; the posture of `[default]` is the least specific of all. Two that
//! are equally specific and contradict each other are an error. Between policies the strictest
//! answer holds, kill before deny before audit before allow: an allow is an exception from its
//! own file, and lifts nothing that another file denies.
#![forbid(unsafe_code)]

mod answer;
mod check;
mod compile;
mod explain;
mod fault;
mod fields;
mod learn;
pub mod model;
pub mod named;
mod nested;
mod packs;
mod read;
mod rule;
mod schema;
mod scope;
mod select;
mod values;
mod words;

#[cfg(test)]
mod compile_tests;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod wrong;

pub use answer::{Action, Answer};
pub use compile::{
    DeviceNode, NetworkAnswer, NetworkNode, PathNode, RuleInfo, Ruleset, TooManyRules, compile,
};
pub use explain::{Act, Advice, Held, Peer, Standing, allowing, explain};
pub use fault::{Fault, Faults, place, printable, quote, suggestion};
pub use learn::learn;
pub use model::Policy;
pub use packs::{PACKS, Pack};
pub use read::{MAX_BYTES, MAX_RULES, MAX_STATEMENTS, Overrides, parse, parse_with};
pub use schema::schema;
pub use select::Container;
pub use words::{head, rule_words};
