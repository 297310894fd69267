//! Log lines to standard error, by a thread of their own.
//!
//! Standard error may be a pipe that nobody reads; a shard that wrote to it would stop serving.
//! Lines are queued, at most [`LINES_QUEUED_MAX`]; what does not fit is dropped and counted in a
//! line of its own once there is room.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};
use std::thread::JoinHandle;

/// Lines that may wait to be written.
pub const LINES_QUEUED_MAX: usize = 4_096;

/// Where lines are queued.
#[derive(Clone, Debug)]
pub(super) struct Sink {
    lines: SyncSender<Option<Vec<u8>>>,
    dropped: Arc<AtomicU64>,
}

/// Writes out what is queued, when dropped.
#[derive(Debug)]
pub struct SinkGuard {
    sink: Sink,
    thread: Option<JoinHandle<()>>,
}

pub(super) fn start() -> io::Result<(Sink, SinkGuard)> {
    let (lines, queue) = std::sync::mpsc::sync_channel(LINES_QUEUED_MAX);
    let sink = Sink { lines, dropped: Arc::default() };
    let dropped = Arc::clone(&sink.dropped);
    let thread = std::thread::Builder::new()
        .name("avow-log-lines".to_owned())
        .spawn(move || write_lines(&queue, &dropped, &mut io::stderr()))?;
    Ok((sink.clone(), SinkGuard { sink, thread: Some(thread) }))
}

fn write_lines(queue: &Receiver<Option<Vec<u8>>>, dropped: &AtomicU64, out: &mut dyn Write) {
    while let Ok(Some(line)) = queue.recv() {
        // There is nobody to tell that the log cannot be written.
        let _ = out.write_all(&line);
        let missing = dropped.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let _ = writeln!(out, "{missing} log lines were dropped: nobody took them in time");
        }
    }
}

impl Sink {
    /// A buffer for one line, queued when dropped.
    pub(super) fn line(&self) -> Line {
        Line { sink: self.clone(), bytes: Vec::new() }
    }
}

impl Drop for SinkGuard {
    fn drop(&mut self) {
        // `None` is behind every line that was queued before.
        let _ = self.sink.lines.send(None);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One line in the making.
#[derive(Debug)]
pub(super) struct Line {
    sink: Sink,
    bytes: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        let line = std::mem::take(&mut self.bytes);
        if let Err(TrySendError::Full(_)) = self.sink.lines.try_send(Some(line)) {
            self.sink.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_nobody_takes_are_dropped_and_counted() {
        let (lines, queue) = std::sync::mpsc::sync_channel(2);
        let sink = Sink { lines, dropped: Arc::default() };
        for text in ["one\n", "two\n", "three\n", "four\n"] {
            sink.line().write_all(text.as_bytes()).unwrap();
        }
        let dropped = Arc::clone(&sink.dropped);
        drop(sink);
        let mut out = Vec::new();
        write_lines(&queue, &dropped, &mut out);
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r"
        one
        2 log lines were dropped: nobody took them in time
        two
        ");
    }
}
