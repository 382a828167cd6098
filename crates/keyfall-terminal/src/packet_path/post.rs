//! Orders to a thread that sleeps in `poll`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use crate::hardening::scrub_stack;
use crate::packet_path::wire::wait;

/// The end that orders are put in at.
pub(super) struct Post<T> {
    orders: Sender<T>,
    bell: Arc<OwnedFd>,
}

/// The end of the thread.
pub(super) struct Mailbox<T> {
    orders: Receiver<T>,
    bell: Arc<OwnedFd>,
}

pub(super) fn open<T>() -> io::Result<(Post<T>, Mailbox<T>)> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let bell = Arc::new(eventfd(0, flags)?);
    let (sender, receiver) = channel();
    let post = Post {
        orders: sender,
        bell: Arc::clone(&bell),
    };
    let mailbox = Mailbox {
        orders: receiver,
        bell,
    };
    Ok((post, mailbox))
}

impl<T> Post<T> {
    /// Never waits. A thread that is gone told why it went.
    pub(super) fn put(&self, order: T) {
        if self.orders.send(order).is_ok() {
            // It fails only when it rings already.
            rustix::io::write(&self.bell, &1u64.to_ne_bytes()).ok();
        }
    }
}

impl<T> Mailbox<T> {
    /// What has come. It asks the system nothing: a thread that is busy looks often.
    pub(super) fn take(&self) -> impl Iterator<Item = T> {
        self.orders.try_iter()
    }

    /// Sleeps until the door can be read or an order has come, or for a second.
    pub(super) fn wait(&self, door: impl AsFd) -> io::Result<()> {
        if self.nap(&door, SHORT)? {
            return Ok(());
        }
        // SECURITY: nothing of a packet or key stays on the stack of a thread that waits for long.
        scrub_stack();
        self.nap(&door, SECOND).map(drop)
    }

    /// Whether something came.
    fn nap(&self, door: impl AsFd, longest: Duration) -> io::Result<bool> {
        let came = wait(door, &self.bell, Some(longest))?;
        if came.second {
            self.hush();
        }
        Ok(came.first || came.second)
    }

    /// The bell has rung. It is silent before the orders are taken, so that none is slept over.
    pub(super) fn hush(&self) {
        let mut count = [0; 8];
        rustix::io::read(&self.bell, &mut count).ok();
    }
}

impl<T> AsFd for Mailbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// Under load something comes sooner, and a stack is not scrubbed for each packet.
const SHORT: Duration = Duration::from_millis(20);
const SECOND: Duration = Duration::from_secs(1);
