//! stub
use super::Error;
use crate::model::event::Event;
use std::sync::Arc;
use std::time::Duration;
/// x
pub trait Way: Send {
    /// x
    fn send(&mut self, events: &[Arc<Event>]) -> Sent;
    /// x
    fn settle(&mut self) -> Settled { Settled::All }
    /// x
    fn gather(&self) -> Duration { Duration::ZERO }
    /// x
    fn reopen(&mut self) {}
}
/// x
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// x
    pub taken: usize,
    /// x
    pub error: Option<Error>,
    /// x
    pub lost: Option<u64>,
}
/// x
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// x
    All,
    /// x
    Pending { 
    /// x
        before: u64 },
    /// x
    Lost { 
    /// x
        from: u64 },
}
