//! Of two that speak, one was restarted.
//!
//! A receiver that was restarted refuses the sessions that it knew up to their stored marks, which run
//! ahead: a sender that goes on in one of them is not heard for up to two seconds or 64 packets. A fresh
//! session is heard at once. Two signs make a sender begin one: its peer begins anew itself, or answers
//! what it refuses by naming the session (PROTOCOL 16.4).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use keyfall_plane::{EspArrival, EspReceiver, EspRefused};
use keyfall_protocol::ids::{Generation, KeyEpoch, TerminalNumber};

use crate::packet_path::SessionName;
use crate::packet_path::inner::Inner;

/// An authentic packet of a session that is not received yet.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct First {
    /// It is refused: up to its stored mark, the session may have been heard before a restart.
    pub(super) is_below: bool,
    pub(super) text: Text,
}

/// What is inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Text {
    Packet(Inner),
    /// A dummy packet that says to this terminal where its sender is.
    Place(TerminalNumber),
    Nothing,
}

impl Text {
    pub(super) const fn packet(self) -> Option<Inner> {
        match self {
            Self::Packet(inner) => Some(inner),
            Self::Place(_) | Self::Nothing => None,
        }
    }
}

impl First {
    /// `receiver` makes one that begins at the given mark; nothing but what is returned is left of it.
    /// `None`: the packet does not open.
    pub(super) fn open(
        sealed: &[u8],
        mark: u32,
        scratch: &mut [u8],
        receiver: impl Fn(u32) -> EspReceiver,
    ) -> Option<Self> {
        let is_below = EspArrival::read(sealed).ok()?.sequence <= mark;
        // Who it is from is known only when it has opened.
        let begins_at = if is_below { 0 } else { mark };
        let text = match receiver(begins_at).open_into(sealed, scratch) {
            Ok((length, _)) => Text::Packet(Inner::read(&scratch[..length])?),
            Err(EspRefused::Place(to)) => Text::Place(to),
            Err(EspRefused::Dummy | EspRefused::Refusal(_)) => Text::Nothing,
            Err(_) => return None,
        };
        Some(Self { is_below, text })
    }
}

/// Whether a terminal is to begin a fresh session in a group.
#[derive(Default)]
pub(super) struct Afresh {
    wanted: bool,
    begun: Option<Instant>,
    /// Under which key, and how many were begun for a wish.
    of_key: Option<((KeyEpoch, Generation), u32)>,
}

impl Afresh {
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// The wish stays until it is. `sessions`: how many would begin.
    ///
    /// SECURITY: a receiver remembers 64 + 1,024 sessions of a sender under one key, and then refuses it.
    /// Whatever peers and members do, no more than half of that is begun for them (KR-567).
    pub(super) fn is_due(&self, key: (KeyEpoch, Generation), now: Instant, sessions: u32) -> bool {
        let count = self.count(key);
        let pause = if count < AT_ONCE {
            AFRESH_EVERY
        } else {
            AFRESH_LATER
        };
        let lately = |begun: Instant| now.saturating_duration_since(begun) < pause;
        self.wanted && count + sessions <= AFRESH_MAX && !self.begun.is_some_and(lately)
    }

    /// So many sessions begin, for whichever reason. Whether one was wished for.
    pub(super) fn begun(
        &mut self,
        key: (KeyEpoch, Generation),
        now: Instant,
        sessions: u32,
    ) -> bool {
        let wanted = std::mem::take(&mut self.wanted);
        if wanted {
            self.of_key = Some((key, self.count(key) + sessions));
            self.begun = Some(now);
        }
        wanted
    }

    fn count(&self, key: (KeyEpoch, Generation)) -> u32 {
        let of_key = self.of_key.filter(|&(it, _)| it == key);
        of_key.map_or(0, |(_, count)| count)
    }
}

/// Which refused packets are answered.
///
/// SECURITY: a recording is authentic, and its source may be forged. What is sent for it is no larger
/// than it, and bounded for each session and in all. A sender that is told heeds it sooner or later, so
/// that a session that goes on is told ever more rarely: else recordings of a few sessions use up what is
/// told in a second, and a peer waits that was refused now. Each address that a session comes from is told
/// by itself, or who plays a recording elsewhere would silence its true sender (KR-567).
#[derive(Default)]
pub(super) struct Answered {
    /// No address twice.
    told: HashMap<SessionName, Vec<Told>>,
    /// When this second began,
    second: Option<Instant>,
    /// how many were told in it,
    count: usize,
    /// and how many of them to further addresses of a session.
    further: usize,
}

#[derive(Clone, Copy)]
struct Told {
    from: IpAddr,
    times: u32,
    /// The last time.
    at: Instant,
    /// When a packet of it was refused last.
    refused: Instant,
}

impl Told {
    /// Until it is told again.
    fn pause(&self) -> Duration {
        SECOND * (1 << self.times.saturating_sub(2).min(PAUSE_DOUBLINGS))
    }
}

impl Answered {
    pub(super) fn may_tell(&mut self, name: SessionName, from: IpAddr, now: Instant) -> bool {
        let since = |at: Instant| now.saturating_duration_since(at);
        if self.second.is_none_or(|began| since(began) >= SECOND) {
            self.told.retain(|_, places| {
                places.retain(|it| since(it.refused) < FORGOTTEN_AFTER);
                !places.is_empty()
            });
            (self.second, self.count, self.further) = (Some(now), 0, 0);
        }
        let places = self.told.get_mut(&name);
        let places = places.map_or(&mut [][..], Vec::as_mut_slice);
        let place = places.iter().position(|it| it.from == from);
        let before = place.map(|place| {
            places[place].refused = now;
            places[place]
        });
        // SECURITY: sources are forged without number.
        let is_further = place.unwrap_or(places.len()) > 0;
        let is_full =
            self.count >= TOLD_A_SECOND || (is_further && self.further >= FURTHER_A_SECOND);
        if is_full || before.is_some_and(|it| since(it.at) < it.pause()) {
            return false;
        }
        self.count += 1;
        self.further += usize::from(is_further);
        if !self.told.contains_key(&name) && self.told.len() >= SESSIONS_MAX {
            self.forget_one();
        }
        let told = Told {
            from,
            times: before.map_or(1, |it| it.times.saturating_add(1)),
            at: now,
            refused: now,
        };
        let places = self.told.entry(name).or_default();
        let oldest = || (0..places.len()).min_by_key(|&place| places[place].at);
        match place.or_else(|| oldest().filter(|_| places.len() >= ADDRESSES_MAX)) {
            Some(place) => places[place] = told,
            None => places.push(told),
        }
        true
    }

    fn forget_one(&mut self) {
        let last = |places: &Vec<Told>| places.iter().map(|it| it.at).max();
        let first = self.told.iter().min_by_key(|(_, places)| last(places));
        if let Some((&name, _)) = first {
            self.told.remove(&name);
        }
    }
}

/// So often at most a session begins in a group because a peer was restarted;
const AFRESH_EVERY: Duration = Duration::from_secs(5);
/// so many of them under one key,
const AT_ONCE: u32 = 32;
/// and then so often,
const AFRESH_LATER: Duration = Duration::from_secs(300);
/// up to so many.
const AFRESH_MAX: u32 = 512;
/// Refusals in all,
const TOLD_A_SECOND: usize = 16;
/// and of them to further addresses of a session.
const FURTHER_A_SECOND: usize = 8;
/// Between two to one address of a session there is 1 s, and again, or few that are lost on a radio would
/// mean a long silence; then twice as long each time, up to 64 s.
const PAUSE_DOUBLINGS: u32 = 6;
/// After it a session of which nothing was refused from an address is told there at once.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(128);
/// Addresses of a session that are told apart; of more the one that was told longest ago is forgotten.
const ADDRESSES_MAX: usize = 4;
/// Of more sessions than are told in the longest pause that one is forgotten whose pauses are over.
const SESSIONS_MAX: usize = TOLD_A_SECOND << PAUSE_DOUBLINGS;
const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use keyfall_plane::{ESP_PLACE_LEN, EspSender, Spi, esp_len};
    use keyfall_protocol::ids::{EspSession, GroupNumber};
    use keyfall_protocol::keys::{EspSuite, MasterKey, Secret};

    use super::*;

    fn key(octet: u8) -> MasterKey {
        let group = GroupNumber::new(1).expect("not 0");
        let secret = Secret::init_with(|into| into.fill(octet));
        MasterKey::new(group, KeyEpoch::new(7), Generation::ZERO, secret)
    }

    fn sender() -> TerminalNumber {
        TerminalNumber::new(2).expect("not 0")
    }

    fn session(number: u8) -> EspSession {
        EspSession::new([number; 5])
    }

    fn name(number: u32) -> SessionName {
        SessionName {
            spi: Spi::new(sender(), 0),
            session: session(0).plus(number),
        }
    }

    /// R-023, KR-557: up to its mark a session is refused, whatever opens of it; above it begins, with a
    /// packet or with a dummy one; and what does not open is neither.
    #[test]
    fn what_is_refused_after_a_restart_is_told_from_what_is_forged() {
        let suite = EspSuite::default();
        let mut from = EspSender::new(suite, &key(1), sender(), session(1));
        let to = TerminalNumber::MAX;
        let packet = [&[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0][..], &[10; 8]].concat();
        let mut seal = |packet: Option<&[u8]>| {
            let mut sealed = vec![0; packet.map_or(ESP_PLACE_LEN, |it| esp_len(it.len()))];
            let size = match packet {
                Some(packet) => from.seal_from(packet, &mut sealed),
                None => from.seal_place(to, &mut sealed),
            };
            sealed.truncate(size.expect("there is room"));
            sealed
        };
        let sealed = [Some(&packet[..]), None, Some(&packet[..]), None].map(&mut seal);
        let open = |sealed: &[u8], octet: u8, mark: u32| {
            First::open(sealed, mark, &mut [0; 2048], |mark| {
                EspReceiver::with_mark(suite, &key(octet), sender(), session(1), mark)
            })
        };
        let inner = Text::Packet(Inner::read(&packet).expect("a packet"));
        let first = sealed.each_ref().map(|it| open(it, 1, 2));
        let of = |is_below, text| Some(First { is_below, text });
        let place = Text::Place(to);
        let below = [of(true, inner), of(true, place)];
        let above = [of(false, inner), of(false, place)];
        assert_eq!(
            (first[..2] == below, first[2..] == above),
            (true, true),
            "{first:?}"
        );
        for sealed in &sealed {
            assert_eq!(open(sealed, 2, 2), None, "under another key");
        }
    }

    /// a second peer that was restarted within seconds is not forgotten; KR-567: no number of them
    /// takes up what receivers remember under one key.
    #[test]
    fn a_wish_for_a_fresh_session_is_put_off_and_bounded() {
        let (start, mut afresh) = (Instant::now(), Afresh::default());
        let key = |generation| (KeyEpoch::new(7), Generation::ZERO.plus(generation));
        let mut begun = Vec::new();
        for second in 0..500_000 {
            let now = start + Duration::from_secs(second);
            afresh.want();
            let key = key(u32::from(second >= 400_000));
            if afresh.is_due(key, now, 1) {
                afresh.begun(key, now, 1);
                begun.push(second);
            }
        }
        assert_eq!(begun[..4], [0, 5, 10, 15]);
        assert_eq!(begun[30..34], [150, 155, 455, 755]);
        let (first, second): (Vec<_>, Vec<_>) = begun.iter().partition(|&&it| it < 400_000);
        assert_eq!((first.len(), second[0], second[1]), (512, 400_000, 400_005));
        // Where several threads send each begins one.
        let (mut of_all, mut times) = (Afresh::default(), 0);
        for second in 0..400_000 {
            of_all.want();
            let now = start + Duration::from_secs(second);
            if of_all.is_due(key(0), now, 5) {
                of_all.begun(key(0), now, 5);
                times += 1;
            }
        }
        assert_eq!(times, 102, "510 sessions");
        let mut afresh = Afresh::default();
        afresh.want();
        assert!(afresh.begun(key(0), start, 1));
        afresh.want();
        let soon = start + Duration::from_secs(4);
        assert!(
            !afresh.is_due(key(0), soon, 1) && afresh.wanted,
            "it is put off"
        );
    }

    const SENDER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    const PLAYER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));

    /// KR-567: whoever feeds recordings gets no flood out of a terminal, from whichever sessions and
    /// addresses.
    #[test]
    fn refused_packets_are_answered_within_bounds() {
        let start = Instant::now();
        let mut refusals = Answered::default();
        for now in [start, start + SECOND] {
            let mut told = |number| refusals.may_tell(name(number), PLAYER, now);
            assert_eq!((0..256).filter(|&it| told(it)).count(), TOLD_A_SECOND);
        }
        // However many there are, little is remembered of them.
        for second in 0..1_000 {
            let now = start + Duration::from_secs(second);
            for number in 0..100 {
                refusals.may_tell(name(100 * second as u32 + number), PLAYER, now);
            }
            assert!(refusals.told.len() <= SESSIONS_MAX);
        }
        let start = start + Duration::from_secs(1_200);
        refusals.may_tell(name(0), PLAYER, start);
        assert_eq!(refusals.told.len(), 1);
        // One recording from forged addresses leaves half for all others.
        for second in 1..100 {
            let now = start + Duration::from_secs(second);
            let forged = |n: u32| IpAddr::from(Ipv4Addr::from_bits(100 * second as u32 + n));
            let told = (0..100).filter(|&n| refusals.may_tell(name(0), forged(n), now));
            assert_eq!(told.count(), FURTHER_A_SECOND);
            assert_eq!(refusals.told[&name(0)].len(), ADDRESSES_MAX);
            let mut told = |number| refusals.may_tell(name(number), SENDER, now);
            let others = 1 + 100 * second as u32..;
            assert_eq!(others.take(100).filter(|&it| told(it)).count(), 8);
        }
    }

    /// KR-567: recordings of as many sessions as are told in a second were told each second, and a peer that
    /// was refused waited for as long as they came. R-101: a few refusals that a radio loses make no long
    /// silence.
    #[test]
    fn recordings_do_not_use_up_the_refusals() {
        let (start, mut refusals) = (Instant::now(), Answered::default());
        let (mut of_first, mut of_peers) = (Vec::new(), Vec::new());
        for tenth in 0..2_000 {
            let now = start + Duration::from_millis(tenth * 100);
            for number in 0..TOLD_A_SECOND as u32 {
                if refusals.may_tell(name(number), PLAYER, now) && number == 0 {
                    of_first.push(tenth / 10);
                }
            }
            // A peer with something to say each second.
            let peer = name(1_000 + tenth as u32);
            if tenth % 10 == 0 && refusals.may_tell(peer, SENDER, now) {
                of_peers.push(tenth / 10);
            }
        }
        assert_eq!(of_first, [0, 1, 2, 4, 8, 16, 32, 64, 128, 192]);
        let expected = (0..200).filter(|second| !of_first.contains(second));
        assert_eq!(of_peers, expected.collect::<Vec<_>>());
        // Silence makes a session one that is told at once.
        let later = start + Duration::from_secs(200) + FORGOTTEN_AFTER;
        let told =
            [0, 0, 1].map(|after| refusals.may_tell(name(0), PLAYER, later + SECOND * after));
        assert_eq!(told, [true, false, true]);
    }

    /// KR-567: a few packets of the session in use were recorded, and are played sparsely from elsewhere:
    /// its true sender, which has little to say, is told as if nobody played them.
    #[test]
    fn who_plays_a_recording_does_not_silence_its_sender() {
        let (start, mut refusals) = (Instant::now(), Answered::default());
        let (mut of_player, mut of_sender) = (Vec::new(), Vec::new());
        for second in 0..300 {
            let now = start + Duration::from_secs(second);
            if refusals.may_tell(name(0), PLAYER, now) {
                of_player.push(second);
            }
            // From 100 s on the sender has a packet every 5 s.
            if second >= 100 && second % 5 == 0 && refusals.may_tell(name(0), SENDER, now) {
                of_sender.push(second);
            }
        }
        assert_eq!(of_player[..8], [0, 1, 2, 4, 8, 16, 32, 64]);
        assert_eq!(of_sender, [100, 105, 110, 115, 120, 130, 150, 185, 250]);
    }
}
