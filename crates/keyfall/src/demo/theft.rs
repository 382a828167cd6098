//! Time, theft and erasure: a group renews by its validity alone; Dave is stolen and hears his
//! deletion; Bob is stolen and jammed; a thief with all of that and every recording tries what opens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use keyfall_plane::Arrival;
use keyfall_protocol::command::{Body, Unverified};
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, Tick, UnixSeconds};
use keyfall_protocol::keys::{SrtpSuite, key_tag};
use keyfall_protocol::server::Item;
use keyfall_sim::{Captured, CapturedPacket, DiskImage, Opened, Thief};
use keyfall_terminal::key_store::KeyStore;
use serde_json::json;

use crate::demo::children::wait_for;
use crate::demo::ears::{Call, Timed};
use crate::demo::speech::Speech;
use crate::demo::stage::{GROUP, PATIENCE, Stage, settle};
use crate::demo::story::Told;

/// What the thief has seen and done by the end.
#[derive(Default)]
pub(super) struct Loss {
    /// A copy of Bob's directory, made when he was stolen.
    bob: PathBuf,
    stolen_at: u32,
    /// The same time by the clock of the recordings.
    stolen: Option<Instant>,
    /// Packets and frames on tape when Bob was excluded.
    packets_before: usize,
    frames_before: usize,
    /// Packets on tape when Dave's keys were gone.
    dave_before: usize,
}

/// The group that renews by the clock, as it began.
pub(super) struct Watch {
    first: u64,
    began: Instant,
}

/// What a thief opened, by what the matrix of docs/THREATS.md has columns for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    media: usize,
    media_of: usize,
    distributions: usize,
    distributions_of: usize,
    media_after: usize,
    media_after_of: usize,
    /// Of all that: what the matrix does not allow.
    beyond: usize,
}

/// What docs/THREATS.md leaves to the thief of a terminal that heard no deletion.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    /// Media from this generation on.
    media_from: (KeyEpoch, Generation),
    /// Distributions that were heard from then on.
    distributions_from: Tick,
    /// And before the exclusion: up to this place on the tape.
    distributions_before: usize,
}

impl Stage {
    /// Alice and Carol share a group that renews every ten seconds, and Carol's radio is cut.
    pub(super) fn begin_watch(&mut self) -> anyhow::Result<Watch> {
        let server = self.path("server");
        self.keyfall.ask(&[
            "admin", "group", "create", "watch", "--member", "alice", "--member", "carol",
            "--period", "10s", "--reason", "demo", "--dir", &server,
        ])?;
        let begins = self.wait_status("carol", "holds the key", |status| {
            generation_of(status, WATCH).is_some()
        })?;
        self.radio.as_mut().context("no radio")?.cut("carol")?;
        let first = generation_of(&begins, WATCH).context("no key")?;
        Ok(Watch {
            first,
            began: Instant::now(),
        })
    }

    /// Meanwhile both have renewed at the same instants, without a command.
    pub(super) fn renew_by_validity(&mut self, watch: &Watch) -> anyhow::Result<Told> {
        let Watch { first, began } = *watch;
        self.wait_status("carol", "renews by herself", |status| {
            generation_of(status, WATCH) > Some(first)
        })?;
        let waited = began.elapsed().as_secs_f64();
        // The next instant may come between two looks.
        let (print, carol) = wait_for("alice is where carol is", PATIENCE, || {
            let (alice, carol) = (self.status("alice")?, self.status("carol")?);
            let [held, of_carol] = [&alice, &carol].map(|status| generation_of(status, WATCH));
            Ok((held == of_carol).then_some((print_of(&alice, WATCH).to_owned(), carol)))
        })?;
        self.radio.as_mut().context("no radio")?.join("carol")?;
        let second = generation_of(&carol, WATCH).context("no key")?;
        let alike = print == print_of(&carol, WATCH);
        Ok(Told::new(
            format!(
                "\"watch\" renews every 10 s by its validity: generation {first} → {second} after \
                 {waited:.1} s, carol's radio cut, no command; both hold the same key ({})",
                print_of(&carol, WATCH)
            ),
            json!({
                "period_seconds": 10,
                "from": first,
                "to": second,
                "fingerprints_equal": alike,
            }),
        )
        .must(alike, "alice and carol hold different keys"))
    }

    /// Dave is stolen. His deletion is heard; he is excluded; his receipt proves it.
    pub(super) fn delete_dave(&mut self, loss: &mut Loss) -> anyhow::Result<Told> {
        let (server, erase) = (self.path("server"), self.path("server/erase.key"));
        let admin = |words: &[&str]| {
            let tail = ["--reason", "stolen", "--ticket", "DEMO-1", "--dir", &server];
            self.keyfall.ask(&[&["admin"], words, &tail].concat())
        };
        admin(&["group", "add", "call", "carol"])?;
        // What he listens with ends with his keys.
        let listening = self.running.remove("dave-receives");
        let began = Instant::now();
        let deleted = [
            "delete-keys",
            "dave",
            "--erase-key",
            &erase,
            "--receipt",
            "--yes",
        ];
        admin(&deleted)?;
        admin(&["exclude", "dave", "--yes"])?;
        // He stays up to say so, and ends with the demo.
        let status = self.wait_status("dave", "has deleted his keys", |status| {
            status["state"] == "deleted"
        })?;
        let took = began.elapsed().as_millis();
        drop(listening);
        let receipt = status["deleted"]["receipt"]
            .as_str()
            .context("dave left no receipt")?;
        let file = self.dir.join("dave.receipt");
        std::fs::write(&file, receipt)?;
        let proof = self.keyfall.ask(&[
            "admin",
            "receipt",
            &file.to_string_lossy(),
            "--dir",
            &server,
        ])?;
        let left = files_in(&self.dir.join("dave"))?;
        let mut thief = Thief::default();
        let disk = loot(&self.dir.join("dave"), &self.dir.join("dave-stolen")).ok();
        if let Some(disk) = &disk {
            thief.take_disk(disk).ok();
        }
        let (frames, packets) = (self.recorded_frames(), self.recorded_packets());
        loss.dave_before = packets.len();
        let opened = thief.open(&frames, &packets);
        let opened = opened.frames.len() + opened.packets.len();
        let name = |path: &PathBuf| {
            path.file_name()
                .map(|name| name.to_string_lossy().into_owned())
        };
        let names: Vec<_> = left.iter().filter_map(name).collect();
        Ok(Told::new(
            format!(
                "dave is stolen: DELETE heard, every key gone {took} ms after the order, his receipt \
                 says so; in his directory is left: {}; with it {opened} of {} packets open",
                names.join(", "),
                packets.len(),
            ),
            json!({
                "milliseconds_to_deletion": u64::try_from(took).unwrap_or(u64::MAX),
                "proved": proof["proved_at"].is_u64(),
                "files_left": names,
                "keys_left": disk.is_some(),
                "thief_opened": opened,
            }),
        )
        .must(disk.is_none(), "keys are left in dave's directory")
        .must(proof["proved_at"].is_u64(), "the receipt does not prove it")
        .must(opened == 0, "the thief opened something"))
    }

    /// Bob is stolen and jammed: nothing reaches him. The others go on without him.
    pub(super) fn exclude_bob(&mut self, loss: &mut Loss) -> anyhow::Result<Told> {
        let (server, erase) = (self.path("server"), self.path("server/erase.key"));
        self.speak_last_words(&server)?;
        self.radio.as_mut().context("no radio")?.cut("bob")?;
        loss.stolen_at = wall()?;
        loss.stolen = Some(Instant::now());
        loss.bob = self.dir.join("bob-stolen");
        wait_for("the thief copies bob's disk", PATIENCE, || {
            Ok(loot(&self.dir.join("bob"), &loss.bob).ok().map(drop))
        })?;
        loss.packets_before = self.tape.len();
        let old = self.status("alice")?["groups"][0]["epoch"].as_u64();
        let began = Instant::now();
        let exclude = ["exclude", "bob", "--erase-key", &erase, "--yes"];
        let tail = ["--reason", "stolen", "--ticket", "DEMO-2", "--dir", &server];
        let order = self
            .keyfall
            .ask(&[&["admin"], &exclude[..], &tail].concat())?;
        // Until it is stored, the carousel still says what bob may hear.
        loss.frames_before = self.frames.count();
        for name in ["alice", "carol"] {
            self.wait_status(name, "sends under the fresh epoch", |status| {
                let group = group_of(status, 1);
                group
                    .is_some_and(|group| group["epoch"].as_u64() > old && group["sending"].is_u64())
            })?;
        }
        let took = began.elapsed().as_millis();
        self.restart_sender()?;
        self.start_receiver("carol")?;
        self.hears("bob")?.take();
        self.speak_briefly("alice", 1)?.finish()?;
        settle();
        let carol = Call::of(&self.hears("carol")?.take());
        let heard = Speech::from_payloads(carol.payloads());
        let differing = self.brief.differing(&heard);
        let sent = self.relay_packets("alice", "send")?;
        let lost = sent.saturating_sub(carol.count() as u64);
        self.overheard();
        // His own machine is in the thief's hands: it runs, holds all its keys and hears the call.
        let bob = self.hears("bob")?.take().len();
        let frames = order["reach"]["frames"].as_u64();
        Ok(Told::new(
            format!(
                "bob is stolen and jammed: one order, {} frames; alice and carol send under a fresh \
                 epoch {took} ms later; their next call: {} packets, {lost} lost, bob's machine \
                 opens {bob}",
                frames.unwrap_or(0),
                carol.count(),
            ),
            json!({
                "milliseconds_to_fresh_epoch": u64::try_from(took).unwrap_or(u64::MAX),
                "frames": frames,
                "packets": carol.count(),
                "packets_lost": lost,
                "audio_samples_differing": differing,
                "excluded_terminal_opened": bob,
            }),
        )
        .must(bob == 0, "bob's machine opened the new epoch")
        .must(carol.count() > 0 && lost == 0 && differing == 0, "carol did not hear the call"))
    }

    /// The thief puts everything together; what opened stands beside what docs/THREATS.md allows.
    pub(super) fn thief(&mut self, loss: &Loss) -> anyhow::Result<Told> {
        let (frames, packets) = (self.recorded_frames(), self.recorded_packets());
        let allowed = Allowed {
            media_from: self.readable_from(loss.stolen_at),
            distributions_from: self.tick(loss.past_begins().context("bob was not stolen")?),
            distributions_before: loss.frames_before,
        };
        let mut bob = Thief::default();
        bob.take_disk(&read_disk(&loss.bob)?)?;
        let opened = bob.open(&frames, &packets);
        let jammed = tally(
            &opened,
            &frames,
            &packets,
            loss.packets_before,
            Some(&allowed),
        );
        let old = |frame: &&Captured| is_distribution(frame) && allowed.is_too_old(frame);
        let old = frames.iter().filter(old).count();
        let mut dave = Thief::default();
        if let Ok(disk) = read_disk(&self.dir.join("dave-stolen")) {
            dave.take_disk(&disk)?;
        }
        let opened = dave.open(&frames, &packets);
        let heard = tally(&opened, &frames, &packets, loss.dave_before, None);
        let beyond = jammed.beyond + heard.beyond;
        let all_known = packets.len() == self.tape.len();
        let within = jammed.all() + heard.all() - beyond;
        let rows = [
            row("delete heard (dave)", &heard),
            row("exclude, jammed (bob)", &jammed),
        ];
        let sentence = format!(
            "a thief has both disks and every recording; what opens:\n\
             {:17}{:<22} {:>16} {:>16} {:>18}\n{}\n\
             {:17}{beyond} beyond the matrix of docs/THREATS.md; {within} within it: under keys that bob \
             held,\n\
             {:17}or that were sent to him at most {} s before (device key period and keep time)",
            "",
            "",
            "recorded media",
            "distributions",
            "media afterwards",
            rows.join("\n"),
            "",
            "",
            FLEET_PERIOD + KEEP_TIME,
        );
        Ok(Told::new(
            sentence,
            json!({
                "thief_opened": beyond,
                "thief_opened_allowed": within,
                "recorded_media": jammed.media_of,
                "recorded_media_opened": jammed.media,
                "distributions": jammed.distributions_of,
                "distributions_opened": jammed.distributions,
                "media_after_the_order": jammed.media_after_of,
                "media_after_the_order_opened": jammed.media_after,
                "distributions_too_old": old,
                "readable_from_generation": allowed.media_from.1.get(),
                "delete_heard_opened": heard.all(),
            }),
        )
        .must(
            all_known,
            "there are packets on tape of no epoch that was named",
        )
        .must(beyond == 0, "the thief opened what he must not")
        .must(
            jammed.media_after == 0,
            "the thief reads on after the exclusion",
        )
        .must(
            jammed.media_after_of > 0,
            "nothing was said after the exclusion",
        )
        .must(
            jammed.distributions > 0 && jammed.media > 0,
            "the thief's tool opens nothing at all, so it shows nothing",
        )
        .must(
            jammed.media < jammed.media_of,
            "the thief opened the whole past",
        )
        .must(
            old > 0,
            "no distribution is old enough to be closed to the thief",
        ))
    }

    /// Half a second of noise from alice's application, under the key that stands now.
    fn hum(&self, part: u16) -> anyhow::Result<()> {
        for number in 0..25 {
            self.hum_once("alice", HUM_SSRC, 25 * part + number)?;
            std::thread::sleep(Duration::from_millis(20));
        }
        settle();
        Ok(())
    }

    /// The last that bob may hear, a distribution and some words under its key: they show that the
    /// thief's tool opens what it can. No device key renews between the distribution and the theft.
    fn speak_last_words(&mut self, server: &str) -> anyhow::Result<()> {
        // Since dave is excluded nobody sends under the key that he has; the key after it is sent with
        // before the next one comes.
        for name in ["alice", "bob"] {
            self.wait_status(name, "may send", |status| {
                status["groups"][0]["sending"].is_u64()
            })?;
        }
        for part in 0..LAST_WORDS_TRIES {
            let before = self.status("bob")?["groups"][0]["epoch"].as_u64();
            let why = ["--reason", "demo", "--dir", server];
            self.keyfall
                .ask(&[&["admin", "rekey", "call"], &why[..]].concat())?;
            let held = self.wait_status("bob", "holds the fresh key", |status| {
                status["groups"][0]["epoch"].as_u64() > before
            })?;
            std::thread::sleep(KEY_SETTLES);
            self.hum(part)?;
            self.overheard();
            if self.status("bob")?["fleet_generation"] == held["fleet_generation"] {
                break;
            }
        }
        Ok(())
    }

    /// The generation at which the group stood when the thief's past begins: the newest that was
    /// said before, in clear, by RENEW.
    fn readable_from(&self, stolen_at: u32) -> (KeyEpoch, Generation) {
        let begins = UnixSeconds::new(stolen_at - FLEET_PERIOD - KEEP_TIME);
        let mut newest = (KeyEpoch::new(0), Generation::ZERO);
        for frame in self.frames.all() {
            let Ok(read) = Unverified::decode(&frame) else {
                continue;
            };
            let Body::Renew(renew) = &read.command().body else {
                continue;
            };
            let call = call().master_key_id();
            for entry in renew.entries.iter().filter(|entry| entry.kid == call) {
                if entry.schedule.activate_at <= begins {
                    newest = newest.max((entry.epoch, entry.schedule.generation));
                }
            }
        }
        newest
    }

    fn recorded_frames(&self) -> Vec<Captured> {
        let recorded = |(at, octets): Timed| Captured {
            at: self.tick(at),
            item: Item::Time,
            octets: Rc::from(octets),
        };
        self.frames.timed().into_iter().map(recorded).collect()
    }

    /// Since the stage was set; 0 for what is earlier.
    fn tick(&self, at: Instant) -> Tick {
        Tick::default().plus(at.saturating_duration_since(self.set_at))
    }

    /// Every packet of the calls, with the epoch and generation that its tag means: the epochs are
    /// named in clear on the carousel, and no generation of the demo comes to 256.
    fn recorded_packets(&self) -> Vec<CapturedPacket> {
        let epochs = self.epochs();
        let recorded = |octets: &Vec<u8>| {
            let arrival = Arrival::of_srtp(SrtpSuite::default(), octets).ok()?;
            let [hash @ .., low8] = arrival.mki.tag();
            Some(CapturedPacket {
                at: Tick::default(),
                sender: arrival.mki.sender(),
                group: call(),
                epoch: *epochs.get(&hash)?,
                generation: Generation::new(u32::from(low8))?,
                octets: Rc::from(octets.as_slice()),
            })
        };
        self.tape.iter().filter_map(recorded).collect()
    }

    /// By what stands for them in a packet. A change names its epoch in clear, by NOTIFY or EXCLUDE
    /// where nobody came to send with it for long enough to be told in RENEW.
    fn epochs(&self) -> BTreeMap<[u8; 2], KeyEpoch> {
        let mut named = Vec::new();
        let kid = call().master_key_id();
        for frame in self.frames.all() {
            let Ok(read) = Unverified::decode(&frame) else {
                continue;
            };
            match &read.command().body {
                Body::Renew(renew) => {
                    let entries = renew.entries.iter().filter(|entry| entry.kid == kid);
                    named.extend(entries.map(|entry| entry.epoch));
                }
                Body::Notify(notify) => {
                    let entries = notify.entries.iter().filter(|entry| entry.group == call());
                    named.extend(entries.map(|entry| entry.epoch));
                }
                Body::Exclude(exclude) => {
                    let fresh = exclude.groups.iter().filter(|fresh| fresh.group == call());
                    named.extend(fresh.map(|fresh| fresh.new));
                }
                Body::Stop(halt) | Body::Start(halt) if halt.group == call() => {
                    named.push(halt.epoch);
                }
                Body::Time(_)
                | Body::KeyDist(_)
                | Body::Order(_)
                | Body::KeySet(_)
                | Body::Stop(_)
                | Body::Start(_) => {}
            }
        }
        let tagged = |epoch| (key_tag(kid, epoch), epoch);
        named.into_iter().map(tagged).collect()
    }
}

impl Loss {
    /// Distributions that were heard before are closed to the thief. `None`: nothing was stolen.
    fn past_begins(&self) -> Option<Instant> {
        let past = Duration::from_secs((FLEET_PERIOD + KEEP_TIME).into()) + SLACK;
        self.stolen.map(|at| at.checked_sub(past).unwrap_or(at))
    }
}

impl Allowed {
    fn is_too_old(&self, frame: &Captured) -> bool {
        frame.at < self.distributions_from
    }
}

impl Tally {
    fn all(&self) -> usize {
        self.media + self.distributions + self.media_after
    }
}

/// Counts what opened: packets before and after place `before` on the tape, distributions, and of
/// those what is not `allowed`: without that, all.
fn tally(
    opened: &Opened,
    frames: &[Captured],
    packets: &[CapturedPacket],
    before: usize,
    allowed: Option<&Allowed>,
) -> Tally {
    let (media, after): (Vec<usize>, Vec<usize>) =
        opened.packets.iter().partition(|&&place| place < before);
    let media_beyond = media.iter().filter(|&&place| {
        let packet = &packets[place];
        allowed.is_none_or(|allowed| (packet.epoch, packet.generation) < allowed.media_from)
    });
    let distributions_beyond = opened.frames.iter().filter(|&&place| {
        allowed.is_none_or(|allowed| {
            place >= allowed.distributions_before || allowed.is_too_old(&frames[place])
        })
    });
    Tally {
        beyond: media_beyond.count() + distributions_beyond.count() + after.len(),
        media: media.len(),
        media_of: before.min(packets.len()),
        distributions: opened.frames.len(),
        distributions_of: frames.iter().filter(|frame| is_distribution(frame)).count(),
        media_after: after.len(),
        media_after_of: packets.len().saturating_sub(before),
    }
}

fn is_distribution(frame: &Captured) -> bool {
    Unverified::decode(&frame.octets)
        .is_ok_and(|read| matches!(read.command().body, Body::KeyDist(_)))
}

fn row(name: &str, tally: &Tally) -> String {
    let of = |opened: usize, all: usize| {
        if all == 0 {
            "–".to_owned()
        } else {
            format!("{opened} of {all}")
        }
    };
    format!(
        "{:17}{name:<22} {:>16} {:>16} {:>18}",
        "",
        of(tally.media, tally.media_of),
        of(tally.distributions, tally.distributions_of),
        of(tally.media_after, tally.media_after_of),
    )
}

/// Copies a terminal's directory as a thief would and opens the copy.
fn loot(dir: &Path, copy: &Path) -> anyhow::Result<DiskImage> {
    if copy.exists() {
        std::fs::remove_dir_all(copy)?;
    }
    std::fs::create_dir(copy)?;
    for file in files_in(dir)? {
        if let (true, Some(name)) = (file.is_file(), file.file_name()) {
            std::fs::copy(&file, copy.join(name))?;
        }
    }
    read_disk(copy)
}

fn read_disk(dir: &Path) -> anyhow::Result<DiskImage> {
    let (_, opened) = KeyStore::open(dir)?;
    Ok(DiskImage {
        device: opened.device.to_vec(),
        user: opened.user.map(|user| user.to_vec()).unwrap_or_default(),
    })
}

fn files_in(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).context("no directory")?;
    let paths = entries.map(|entry| Ok(entry?.path()));
    paths.collect()
}

fn group_of(status: &serde_json::Value, group: u32) -> Option<&serde_json::Value> {
    let groups = status["groups"].as_array()?;
    groups.iter().find(|held| held["group"] == group)
}

fn generation_of(status: &serde_json::Value, group: u32) -> Option<u64> {
    group_of(status, group)?["generation"].as_u64()
}

fn print_of(status: &serde_json::Value, group: u32) -> &str {
    group_of(status, group)
        .and_then(|held| held["fingerprint"].as_str())
        .unwrap_or("?")
}

/// The group of the calls.
fn call() -> GroupNumber {
    let number = GROUP.parse().ok().and_then(GroupNumber::new);
    number.expect("the group of the demo has a number")
}

fn wall() -> anyhow::Result<u32> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Ok(u32::try_from(
        since.context("the clock is before 1970")?.as_secs(),
    )?)
}

/// The second group that is made.
const WATCH: u32 = 2;
/// Longer than a fresh key that nobody confirms waits until it is sent with.
const KEY_SETTLES: Duration = Duration::from_secs(3);
/// Device keys renew every ten seconds, and one try takes about four.
const LAST_WORDS_TRIES: u16 = 5;
/// Seconds; as story.rs tells the server.
const FLEET_PERIOD: u32 = 10;
const KEEP_TIME: u32 = 2;
/// A terminal hears the time a little late, and looks at its timers each second.
const SLACK: Duration = Duration::from_secs(2);
/// Another stream than the speech.
const HUM_SSRC: u32 = 0x4b46_0002;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_that_opens_and_is_older_than_allowed_is_beyond_the_matrix() {
        let heard_at = |seconds| Captured {
            at: Tick::from_secs(seconds),
            item: Item::Time,
            octets: Rc::from([]),
        };
        let frames = [5, 20, 30].map(heard_at);
        let allowed = Allowed {
            media_from: (KeyEpoch::new(0), Generation::ZERO),
            distributions_from: Tick::from_secs(6),
            distributions_before: 2,
        };
        let beyond = |places: &[usize]| {
            let opened = Opened {
                frames: places.to_vec(),
                ..Opened::default()
            };
            tally(&opened, &frames, &[], 0, Some(&allowed)).beyond
        };
        assert_eq!(beyond(&[1]), 0);
        assert_eq!(beyond(&[0, 1]), 1, "heard too long before the theft");
        assert_eq!(beyond(&[1, 2]), 1, "sent after the exclusion");
    }
}
