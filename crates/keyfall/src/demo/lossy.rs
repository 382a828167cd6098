//! The bad radio of the demo: a process of its own that hands the server's frames on to each
//! terminal, and drops what the story says. It has no key and needs none.

use std::io::BufRead as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use clap::Args;
use keyfall_carrier::{CarrierAddress, MulticastReceiver, MulticastSender};

/// The lossy relay that `keyfall demo` starts.
#[derive(Args, Debug)]
pub(crate) struct LossyArgs {
    /// Where the server sends.
    #[arg(long)]
    from: CarrierAddress,
    /// A terminal's name and where it listens, as NAME=ADDRESS.
    #[arg(long, value_parser = receiver)]
    to: Vec<(String, CarrierAddress)>,
}

fn receiver(text: &str) -> Result<(String, CarrierAddress), String> {
    let (name, address) = text.split_once('=').ok_or("NAME=ADDRESS is needed")?;
    address
        .parse()
        .map(|address| (name.to_owned(), address))
        .map_err(|fault| format!("{fault}"))
}

struct Listener {
    name: String,
    out: MulticastSender,
    cut: AtomicBool,
}

/// Runs until stdin ends. A line "cut NAME" or "join NAME" on stdin is obeyed at once and answered
/// by the same line on stdout.
pub(crate) fn run(args: &LossyArgs) -> anyhow::Result<()> {
    let mut listeners = Vec::new();
    for (name, address) in &args.to {
        let out = MulticastSender::open(address)?;
        listeners.push(Listener {
            name: name.clone(),
            out,
            cut: AtomicBool::new(false),
        });
    }
    let listeners = Arc::new(listeners);
    let relayed = Arc::clone(&listeners);
    let from = args.from;
    std::thread::spawn(move || {
        if let Err(fault) = relay(&from, &relayed) {
            tracing::error!("the lossy relay ends: {fault:#}");
            std::process::exit(1);
        }
    });
    for line in std::io::stdin().lock().lines() {
        let line = line.context("stdin is lost")?;
        let (word, name) = line
            .split_once(' ')
            .context("cut NAME or join NAME is needed")?;
        let cut = match word {
            "cut" => true,
            "join" => false,
            _ => bail!("cut NAME or join NAME is needed, not {line:?}"),
        };
        let named = |listener: &&Listener| listener.name == name;
        listeners
            .iter()
            .find(named)
            .context("no such listener")?
            .cut
            .store(cut, Ordering::SeqCst);
        crate::output::Output::new(false)
            .text(&line)
            .map_err(|_| anyhow::anyhow!("stdout is lost"))?;
    }
    Ok(())
}

fn relay(from: &CarrierAddress, listeners: &[Listener]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let mut receiver = MulticastReceiver::open(from)?;
        loop {
            let frame = receiver.recv().await?;
            for listener in listeners {
                if !listener.cut.load(Ordering::SeqCst) {
                    listener.out.send(frame)?;
                }
            }
        }
    })
}
