//! Taking up what came into force, and telling what differs from it.

use super::super::{Error, doubts};
use super::beside::Standing;
use super::daemon::Daemon;
use super::force::InForce;
use super::look::lock;
use super::sinks;
use crate::alert::desk::order::Order;
use crate::model::event::Kind;
use crate::model::name;
use crate::model::severity::Severity;
use std::sync::Arc;

impl Daemon {
    /// Takes up the generation that is in force now, if it is another one.
    pub(super) fn follow(&mut self) {
        match self.load_next() {
            Ok(next) if next.generation() == self.parts.in_force.generation() => {}
            Ok(next) => {
                self.take_up(Arc::new(next));
                self.tell_reloaded("");
            }
            Err(error) => self.refuse(&error),
        }
    }

    /// Takes up everything again, because somebody asked for it by SIGHUP.
    pub(super) fn reload(&mut self) {
        // Whoever does not listen does not wait for it.
        let _ = self.parts.notify.reloading();
        self.parts.board.reopen();
        match self.load_next() {
            Ok(next) => {
                self.take_up(Arc::new(next));
                // What could not be watched may be by now.
                self.adopt();
                self.tell_reloaded(", and everything was taken up again");
            }
            Err(error) => self.refuse(&error),
        }
        self.compare_sources();
        self.say_ready();
    }

    /// What is in force by the state directory, if it may follow what is in force here.
    ///
    /// The daemon remembers what it went by, which nobody can take back: whoever can sign on this
    /// host must not lead it back, or beside, where a check that begins anew could be led.
    ///
    /// # Errors
    /// Those of loading; and `Integrity` for an older generation, for another one of the same
    /// number or of another chain, and for a key that nobody vouches for any more.
    fn load_next(&self) -> Result<InForce, Error> {
        let next = InForce::load(&self.parts.context, &self.parts.state)?;
        let (old, new) = (&self.parts.in_force.force, &next.force);
        let (from, to) = (old.baseline.sealed(), new.baseline.sealed());
        let (number, highest) = (from.manifest.generation, to.manifest.generation);
        if highest < number {
            return Err(Error::Integrity(format!(
                "baseline: generation {highest} is the highest there, but {number} was in force: an older one was put back; restore it, or restart fim watch if that is meant"
            )));
        }
        if to.digest_of(number) != Some(from.digest) {
            return Err(Error::Integrity(format!(
                "baseline: generation {number} there is not the one that was in force; restore it, or restart fim watch if that is meant"
            )));
        }
        if old.trust.vouched && !new.trust.vouched {
            return Err(Error::Integrity(format!("keys/local.pub: {}", doubts::UNVOUCHED)));
        }
        Ok(next)
    }

    fn tell_reloaded(&self, more: &str) {
        let generation = self.parts.in_force.generation();
        let message = format!("generation {generation} is watched now{more}");
        let mut event = self.stamp().event(Kind::Reloaded, Severity::Info, message);
        let digest = self.parts.in_force.force.baseline.sealed().digest;
        event.digest = Some(crate::model::value::hex(&digest));
        self.tell(event);
    }

    /// What does not verify is told once, and what was in force stays so.
    fn refuse(&mut self, error: &Error) {
        let text =
            format!("{error}; generation {} stays in force", self.parts.in_force.generation());
        if self.trouble.as_ref() != Some(&text) {
            self.tell_degraded(Severity::Critical, &text);
            self.trouble = Some(text);
        }
    }

    /// The baseline's file was touched: it is verified once more.
    ///
    /// # Errors
    /// An integrity failure if it does not verify: nothing can be compared with it any more.
    pub(super) fn verify_again(&mut self) -> Result<(), Error> {
        match self.load_next() {
            // An old one gave way to that.
            Ok(next) if next.generation() != self.parts.in_force.generation() => {
                self.take_up(Arc::new(next));
                self.tell_reloaded("");
                Ok(())
            }
            Ok(next) => {
                let text = "the file of the baseline was touched; it verifies, and is opened anew";
                self.tell_degraded(Severity::Medium, text);
                self.take_up(Arc::new(next));
                self.want_everything();
                Ok(())
            }
            Err(error) => {
                let text = format!("{error}; nothing can be compared with the baseline any more");
                let event = self.stamp().degraded(Severity::Critical, &text);
                self.stop(event);
                Err(error)
            }
        }
    }

    /// Tells sources that are not what is in force, and doubts about that, each once as long as it
    /// is the same.
    pub(super) fn compare_sources(&mut self) {
        let standing = Standing::of(&self.parts.context, &self.parts.in_force);
        for one in standing.iter().filter(|one| !self.standing.contains(one)) {
            let mut event = self.stamp().event(one.kind, one.severity, one.line());
            if one.kind == Kind::SourceDiffers {
                event = event.about(&one.path);
            } else {
                event.reason = Some(one.line());
            }
            self.tell(event);
        }
        let over = self.standing.iter().filter(|one| !standing.contains(one));
        let over = over.filter(|one| one.kind == Kind::SourceDiffers);
        for one in over.filter(|one| !standing.iter().any(|now| now.path == one.path)) {
            let message = format!("{} is what is in force again", name::escape(&one.path));
            let event = self.stamp().event(Kind::Resolved, Severity::Critical, message);
            self.tell(event.about(&one.path));
        }
        self.standing = standing;
    }

    /// Other sinks take over from those there were.
    pub(super) fn change_sinks(&mut self, old: &InForce) {
        let next = Arc::clone(&self.parts.in_force);
        let config = &next.force.config;
        if old.force.config.sinks == config.sinks {
            return;
        }
        for sink in &config.sinks.0 {
            let program = sinks::program(sink);
            if program.is_some_and(|program| !self.parts.programs.contains(&program)) {
                let text = format!(
                    "sink {}: restart needed: programs are run by a process that was started before this one was configured",
                    sink.label()
                );
                self.tell_degraded(Severity::High, &text);
            }
        }
        let known = self.parts.board.slots();
        let head = lock(&self.parts.tally).head;
        let parts = &self.parts;
        let (run, orders) = (&parts.run, &parts.orders);
        match sinks::start(&config.sinks.0, &known, head, run, orders, &parts.threads) {
            Ok(board) => {
                self.parts.board.close();
                self.parts.board = Arc::clone(&board);
                self.order(Order::Sinks(board));
            }
            Err(error) => {
                let text =
                    format!("sinks: {error}; those that were in force stay so; restart fim watch");
                self.tell_degraded(Severity::High, &text);
            }
        }
    }
}
