//! The sinks of the configuration in force: a board, and a courier for each.

use super::super::mail;
use super::start::Threads;
use crate::alert::board::{Board, Slot};
use crate::alert::desk::order::Order;
use crate::alert::dispatch;
use crate::alert::way::{self, Run};
use crate::config::sink::{MailServer, Sink, SinkKind};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

/// The programs that sinks run.
pub(super) fn programs(sinks: &[Sink]) -> Vec<PathBuf> {
    let mut programs: Vec<PathBuf> = sinks.iter().filter_map(program).collect();
    programs.sort();
    programs.dedup();
    programs
}

/// The program that a sink runs, if it runs one.
pub(super) fn program(sink: &Sink) -> Option<PathBuf> {
    match &sink.kind {
        SinkKind::Exec { command, .. } => command.first().map(PathBuf::from),
        SinkKind::Email { server: MailServer::Sendmail(path), .. } => Some(path.clone()),
        SinkKind::Email { server: MailServer::Smtp { .. }, .. }
        | SinkKind::Syslog { .. }
        | SinkKind::File { .. } => None,
    }
}

/// Starts a courier for each sink, from the position that `known` has for it, or else from `head`.
///
/// # Errors
/// If there can be no thread.
pub(super) fn start(
    sinks: &[Sink],
    known: &[Slot],
    head: u64,
    run: &Arc<dyn Run>,
    orders: &SyncSender<Order>,
    threads: &Threads,
) -> io::Result<Arc<Board>> {
    let position = |sink: &Sink| {
        let label = sink.label();
        let slot = known.iter().find(|slot| slot.label == label);
        slot.map_or(head, |slot| slot.position)
    };
    let board = Arc::new(Board::new(sinks.iter().map(|sink| (sink.label(), position(sink))), head));
    let host = mail::this_host();
    for (number, sink) in sinks.iter().enumerate() {
        let way = way::open(sink, &host, Arc::clone(run));
        let orders = orders.clone();
        let courier = dispatch::Route {
            slot: number,
            label: sink.label(),
            board: Arc::clone(&board),
            // Without a desk the daemon is about to end.
            ask: Box::new(move |request| drop(orders.send(Order::Request(request)))),
        };
        let (sink, position) = (sink.clone(), position(sink));
        threads.start_quiet(&format!("sink-{number}"), move || {
            courier.carry(&sink, way, position);
        })?;
    }
    Ok(board)
}
