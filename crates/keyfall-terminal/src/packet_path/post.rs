//! Orders to a thread that sleeps in `poll`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::event::{EventfdFlags, eventfd};

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
    /// What has come; the bell is silent then.
    pub(super) fn take(&self) -> impl Iterator<Item = T> {
        let mut count = [0; 8];
        rustix::io::read(&self.bell, &mut count).ok();
        self.orders.try_iter()
    }
}

impl<T> AsFd for Mailbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
