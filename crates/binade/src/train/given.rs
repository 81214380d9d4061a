//! [`Given`]: flags with defaults, and which of them the command line gave.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Flags whose defaults stand beside them. Where a run is resumed, those that are not given are the run's instead.
#[derive(Clone, Debug)]
pub struct Given<T> {
    flags: T,
    /// Names of the fields.
    given: BTreeSet<String>,
}

impl<T> Given<T> {
    /// As the command line has them, defaults where it is silent.
    pub fn flags(&self) -> &T {
        &self.flags
    }

    /// The first of these flags that was given.
    pub fn first(&self) -> Option<String> {
        Some(format!("--{}", self.given.first()?.replace('_', "-")))
    }
}

impl<T: Serialize + DeserializeOwned> Given<T> {
    /// What was given over what `was` has.
    pub fn over(&self, was: &T) -> Result<T> {
        let (mut all, flags) = (serde_json::to_value(was)?, serde_json::to_value(&self.flags)?);
        let (Some(fields), Some(flags)) = (all.as_object_mut(), flags.as_object()) else {
            return serde_json::from_value(all).context("options without names");
        };
        for (name, value) in flags.iter().filter(|(name, _)| self.given.contains(*name)) {
            fields.insert(name.clone(), value.clone());
        }
        Ok(serde_json::from_value(all)?)
    }
}

impl<T: Args> FromArgMatches for Given<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Given<T>, clap::Error> {
        let by_hand = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
        let own = T::augment_args(Command::new("flags"));
        let names = own.get_arguments().map(|arg| arg.get_id().as_str());
        let given = names.filter(by_hand).map(str::to_string).collect();
        Ok(Given { flags: T::from_arg_matches(matches)?, given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Given::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<T: Args> Args for Given<T> {
    fn augment_args(command: Command) -> Command {
        T::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        T::augment_args_for_update(command)
    }
}
