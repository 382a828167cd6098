//! `keyfall media`: asks a running terminal to relay media, stays in front, and ends it on Ctrl-C.

use std::path::PathBuf;
use std::pin::pin;

use clap::{Args, Subcommand};
use keyfall_api::control::{
    Answer, MediaParams, MediaReceive, MediaSend, RelayStatus, Request, StreamPolicy,
};

use crate::control_client::{self, Control};
use crate::explain::Code;
use crate::output::{Failure, Output, utc};
use crate::terminal::{dir_of_environment, no_directory, small_runtime};

/// Send and receive media of local applications through a running terminal.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall media send --dir alice --group 7 \
                        --rtp 127.0.0.1:5004 --to 239.255.70.1:5004\n  \
                        keyfall media receive --dir bob --group 7 \
                        --from 239.255.70.1:5004 --rtp 127.0.0.1:6004")]
pub(crate) struct MediaArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Send(SendArgs),
    Receive(ReceiveArgs),
    Params(ParamsArgs),
    Stop(StopArgs),
}

#[derive(Args, Debug)]
struct Running {
    /// The directory of the running terminal, or KEYFALL_DIR.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Take plain RTP and RTCP of a local application and send SRTP and SRTCP.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall media send --dir alice --group 7 \
                        --rtp 127.0.0.1:5004 --to 239.255.70.1:5004 --if 127.0.0.1\n  \
                        ffmpeg -re -i speech.wav -ar 8000 -ac 1 -c:a pcm_s16be -f rtp \
                        'rtp://127.0.0.1:5004?pkt_size=172'")]
struct SendArgs {
    #[command(flatten)]
    running: Running,
    /// Number of the group whose terminals can open it.
    #[arg(long)]
    group: u32,
    /// Where the application sends its RTP; RTCP on the next port.
    #[arg(long, value_name = "ADDRESS:PORT")]
    rtp: String,
    /// Where SRTP goes: a multicast group or one receiver; SRTCP to the next port.
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: String,
    /// Address of the interface for multicast; without it the carrier's.
    #[arg(long = "if", value_name = "ADDRESS")]
    interface: Option<String>,
    /// Routers that multicast may pass, plus one.
    #[arg(long, default_value_t = 1)]
    ttl: u8,
    /// AEAD_AES_256_GCM (default), AEAD_AES_128_GCM or AES_CM_128_HMAC_SHA1_80.
    #[arg(long)]
    suite: Option<String>,
    /// Packets for each session key, a power of two from 1024; receivers must be told the same.
    #[arg(long, value_name = "PACKETS")]
    rederive_after: Option<u32>,
    /// For stock receivers: one session key, and no MKI.
    #[arg(long = "static")]
    stock: bool,
    /// With --static: send the MKI.
    #[arg(long)]
    mki: bool,
    /// Begin although the group's key has not come yet.
    #[arg(long)]
    wait: bool,
}

/// Take SRTP and SRTCP and give plain RTP and RTCP to a local application.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall media receive --dir bob --group 7 \
                        --from 239.255.70.1:5004 --if 127.0.0.1 --rtp 127.0.0.1:6004")]
struct ReceiveArgs {
    #[command(flatten)]
    running: Running,
    /// Number of the group.
    #[arg(long)]
    group: u32,
    /// The multicast group, or this machine's own address, where SRTP comes; SRTCP on the next
    /// port.
    #[arg(long, value_name = "ADDRESS:PORT")]
    from: String,
    /// Address of the interface for multicast; without it the carrier's.
    #[arg(long = "if", value_name = "ADDRESS")]
    interface: Option<String>,
    /// Where the application takes RTP; RTCP on the next port.
    #[arg(long, value_name = "ADDRESS:PORT")]
    rtp: String,
    /// As the sender has it.
    #[arg(long)]
    suite: Option<String>,
    /// As the sender has it.
    #[arg(long, value_name = "PACKETS")]
    rederive_after: Option<u32>,
    /// Begin although the group's key has not come yet.
    #[arg(long)]
    wait: bool,
}

/// Print key, salt, MKI and ROC of what is being sent, for stock receivers. These are secret.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall media params --dir alice --json")]
struct ParamsArgs {
    #[command(flatten)]
    running: Running,
    /// Of this relay only; `keyfall terminal status` lists them.
    #[arg(long)]
    relay: Option<u32>,
}

/// End a relay that another command holds.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall media stop --dir alice --relay 1")]
struct StopArgs {
    #[command(flatten)]
    running: Running,
    /// Its number; `keyfall terminal status` lists them.
    #[arg(long)]
    relay: u32,
}

pub(crate) fn run(args: MediaArgs, output: &Output) -> Result<(), Failure> {
    match args.verb {
        Verb::Send(args) => {
            let request = Request::MediaSend(MediaSend {
                group: args.group,
                rtp: args.rtp,
                to: args.to,
                interface: args.interface,
                ttl: args.ttl,
                suite: args.suite,
                rederive_after: args.rederive_after,
                stock: args.stock,
                mki: args.mki,
                wait: args.wait,
            });
            relay_in_front(&args.running, &request, output)
        }
        Verb::Receive(args) => {
            let request = Request::MediaReceive(MediaReceive {
                group: args.group,
                from: args.from,
                interface: args.interface,
                rtp: args.rtp,
                suite: args.suite,
                rederive_after: args.rederive_after,
                wait: args.wait,
            });
            relay_in_front(&args.running, &request, output)
        }
        Verb::Params(args) => params(&args, output),
        Verb::Stop(args) => {
            let request = Request::MediaStop { relay: args.relay };
            let dir = args.running.resolve()?;
            let Answer::Stopped(status) = control_client::ask(&dir, &request)? else {
                return Err(control_client::unexpected());
            };
            output.versioned(&status, relay_for_people)
        }
    }
}

impl Running {
    fn resolve(&self) -> Result<PathBuf, Failure> {
        self.dir
            .clone()
            .or_else(dir_of_environment)
            .ok_or_else(no_directory)
    }
}

/// One relay, on one line.
pub(crate) fn relay_for_people(relay: &RelayStatus) -> String {
    let generation = relay.generation.map_or_else(String::new, |generation| {
        format!(", generation {generation}")
    });
    let waiting = if relay.waiting == 0 {
        String::new()
    } else {
        format!(", {} wait for the end of a stop", relay.waiting)
    };
    let drops: Vec<_> = relay
        .drops
        .iter()
        .map(|drop| format!("{} {} ({})", drop.count, drop.reason, drop.code))
        .collect();
    let dropped = if drops.is_empty() {
        String::new()
    } else {
        format!(", dropped {}", drops.join(", "))
    };
    format!(
        "relay {}: {} group {} from {} to {}, {} packets, {} RTCP{generation}{waiting}{dropped}",
        relay.relay,
        relay.direction,
        relay.group,
        relay.listens,
        relay.sends_to,
        relay.packets,
        relay.rtcp_packets
    )
}

/// Begins a relay, shows how it goes, and ends it with this command.
fn relay_in_front(running: &Running, request: &Request, output: &Output) -> Result<(), Failure> {
    let dir = running.resolve()?;
    small_runtime()?.block_on(async {
        let mut interrupted = pin!(control_client::interrupted()?);
        let mut control = Control::connect(&dir).await?;
        control.say(request).await?;
        let mut ending = false;
        let mut told = Told::default();
        loop {
            let answer = tokio::select! {
                answer = control.hear() => answer?,
                () = &mut interrupted, if !ending => {
                    ending = true;
                    let Some(relay) = told.relay else {
                        return Err(Failure::new(Code::ControlSocket, "ended before it began"));
                    };
                    control.say(&Request::MediaStop { relay }).await?;
                    continue;
                }
            };
            match answer {
                Answer::Started(status) => told.started(&status, output)?,
                Answer::Progress(status) => told.progress(&status, output)?,
                // In front, the last figures are the result.
                Answer::Ended(status) => return output.versioned(&status, relay_for_people),
                Answer::Stopped(_) => {}
                Answer::Status(_)
                | Answer::Why(_)
                | Answer::Params(_)
                | Answer::PacketKeys(_)
                | Answer::Way(_)
                | Answer::Inspected(_)
                | Answer::Error(_) => return Err(control_client::unexpected()),
            }
        }
    })
}

/// What people were told of a running relay.
#[derive(Default)]
struct Told {
    relay: Option<u32>,
    seconds: u32,
}

impl Told {
    fn started(&mut self, status: &RelayStatus, output: &Output) -> Result<(), Failure> {
        self.relay = Some(status.relay);
        if output.is_json() {
            return Ok(());
        }
        output.text(&format!(
            "{}; Ctrl-C ends it\nFor example: {}",
            relay_for_people(status),
            example_of(status)
        ))
    }

    fn progress(&mut self, status: &RelayStatus, output: &Output) -> Result<(), Failure> {
        self.seconds += 1;
        if output.is_json() || !self.seconds.is_multiple_of(SECONDS_BETWEEN_LINES) {
            return Ok(());
        }
        output.text(&relay_for_people(status))
    }
}

/// A line of another tool, ready to paste, that speaks to or hears this relay.
fn example_of(status: &RelayStatus) -> String {
    if status.direction == "send" {
        let to = &status.listens;
        return format!(
            "ffmpeg -re -i FILE -ar 8000 -ac 1 -c:a pcm_s16be -f rtp 'rtp://{to}?pkt_size=172'"
        );
    }
    let (address, port) = status.sends_to.rsplit_once(':').unwrap_or(("", ""));
    format!(
        "gst-launch-1.0 udpsrc address={address} port={port} caps='application/x-rtp, media=audio, \
         clock-rate=8000, encoding-name=L16, channels=1' ! rtpL16depay ! audioconvert ! autoaudiosink"
    )
}

fn params(args: &ParamsArgs, output: &Output) -> Result<(), Failure> {
    let request = Request::MediaParams { relay: args.relay };
    let Answer::Params(params) = control_client::ask(&args.running.resolve()?, &request)? else {
        return Err(control_client::unexpected());
    };
    if params.policies.is_empty() {
        let sentence = "nothing is being sent: begin with `keyfall media send`, and let the \
                        application send its first packet";
        return Err(Failure::new(Code::NoSuchRelay, sentence));
    }
    output.versioned(&params, params_for_people)
}

fn params_for_people(params: &MediaParams) -> String {
    params
        .policies
        .iter()
        .map(policy_for_people)
        .collect::<Vec<_>>()
        .join("\n\n")
}

fn policy_for_people(policy: &StreamPolicy) -> String {
    let ends = match policy.ends_at {
        Some(at) => format!("ends at {}, or earlier with a renewal by command", utc(at)),
        None => "ends with the next renewal".to_owned(),
    };
    let mki = policy.mki.as_deref().unwrap_or("none in the packets");
    format!(
        "relay {} group {} SSRC {}\nsuite {}\nkey   {}\nsalt  {}\nMKI   {mki}\nROC   {}\n\
         n     {} of epoch {} generation {}\n{ends}, after {} more packets at the latest",
        policy.relay,
        policy.group,
        policy.ssrc,
        policy.suite,
        policy.key,
        policy.salt,
        policy.roc,
        policy.stretch,
        policy.epoch,
        policy.generation,
        policy.packets_left
    )
}

const SECONDS_BETWEEN_LINES: u32 = 10;
