//! What keeps strangers from costing much: cookies, budgets, and the requests of the last minute.

use core::net::SocketAddr;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};

use crate::ids::Tick;
use crate::keys::Secret;
use crate::sharing::message::Cookie;

/// Cookies, budgets and the request IVs of the last minutes.
#[derive(Debug)]
pub(super) struct Cookies {
    key: hmac::Key,
    recent: Recent,
    /// Public-key work without a cookie that may be begun in this second, and who began some.
    bare: Bare,
}

#[derive(Debug)]
struct Recent {
    since: Tick,
    present: HashSet<[u8; 12]>,
    before: HashSet<[u8; 12]>,
}

#[derive(Debug)]
struct Bare {
    second: Tick,
    begun: u32,
    by_source: HashMap<SocketAddr, u32>,
}

impl Cookies {
    /// `secret` lives as long as the process.
    pub(super) fn new(secret: Secret<32>, now: Tick) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret.expose()),
            recent: Recent {
                since: now,
                present: HashSet::new(),
                before: HashSet::new(),
            },
            bare: Bare {
                second: now,
                begun: 0,
                by_source: HashMap::new(),
            },
        }
    }

    /// `HMAC-SHA-256(secret, address ‖ minute)`, the first 16 octets.
    pub(super) fn make(&self, from: SocketAddr, now: Tick) -> Cookie {
        self.of(from, minute(now))
    }

    /// Whether it was given to that address in this or the last minute.
    pub(super) fn check(&self, cookie: &Cookie, from: SocketAddr, now: Tick) -> bool {
        let minute = minute(now);
        [minute, minute.saturating_sub(1)].iter().any(|&minute| {
            constant_time::verify_slices_are_equal(&self.of(from, minute), cookie).is_ok()
        })
    }

    fn of(&self, from: SocketAddr, minute: u64) -> Cookie {
        let mut context = hmac::Context::with_key(&self.key);
        match from.ip() {
            core::net::IpAddr::V4(ip) => context.update(&ip.octets()),
            core::net::IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        context.update(&from.port().to_be_bytes());
        context.update(&minute.to_be_bytes());
        let mut cookie = [0; 16];
        cookie.copy_from_slice(&context.sign().as_ref()[..16]);
        cookie
    }

    /// Notes a verified request; false where it was answered before, or nobody can tell any more: a
    /// recording must not make the server send more than it is sent (KR-363).
    pub(super) fn is_first(&mut self, iv: [u8; 12], now: Tick) -> bool {
        let recent = &mut self.recent;
        if now.since(recent.since) >= WINDOW {
            recent.before = std::mem::take(&mut recent.present);
            recent.since = now;
        }
        if recent.present.len() >= RECENT_MAX || recent.before.contains(&iv) {
            return false;
        }
        recent.present.insert(iv)
    }

    /// Whether public-key work may be begun for who has shown no cookie (KR-369).
    pub(super) fn may_begin_bare(&mut self, from: SocketAddr, now: Tick) -> bool {
        let bare = &mut self.bare;
        if now.since(bare.second) >= Duration::from_secs(1) {
            (bare.second, bare.begun) = (now, 0);
            bare.by_source.clear();
        }
        if bare.begun >= BARE_A_SECOND {
            return false;
        }
        let of_source = bare.by_source.entry(from).or_insert(0);
        if *of_source >= BARE_A_SOURCE {
            return false;
        }
        *of_source += 1;
        bare.begun += 1;
        true
    }
}

fn minute(now: Tick) -> u64 {
    now.as_nanos() / 60_000_000_000
}

/// A request's time may be so far off that it is answered without a cookie; IVs are kept twice as
/// long.
pub(super) const TIME_SLACK: u32 = 60;
const WINDOW: Duration = Duration::from_secs(2 * TIME_SLACK as u64);
const RECENT_MAX: usize = 262_144;
const BARE_A_SECOND: u32 = 64;
const BARE_A_SOURCE: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies() -> Cookies {
        Cookies::new(Secret::init_with(|into| into.fill(1)), Tick::default())
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn a_cookie_is_good_for_its_address_and_a_minute() {
        let cookies = cookies();
        let cookie = cookies.make(address(1), Tick::from_secs(30));
        let good = |from, at| cookies.check(&cookie, from, Tick::from_secs(at));
        assert!(good(address(1), 31) && good(address(1), 119));
        assert!(!good(address(1), 120));
        assert!(!good(address(2), 31), "another port is another address");
        assert!(!good(SocketAddr::from(([192, 0, 2, 2], 1)), 31));
    }

    #[test]
    fn a_request_is_first_once_for_as_long_as_its_time_is_near() {
        let mut cookies = cookies();
        assert!(cookies.is_first([1; 12], Tick::from_secs(1)));
        for second in [1, 60, 119, 121, 200] {
            assert!(
                !cookies.is_first([1; 12], Tick::from_secs(second)),
                "{second}"
            );
        }
    }

    #[test]
    fn public_key_work_without_a_cookie_is_bounded_for_each_and_for_all() {
        let mut cookies = cookies();
        let begun = |cookies: &mut Cookies, port| {
            (0..100)
                .filter(|_| cookies.may_begin_bare(address(port), Tick::from_secs(1)))
                .count()
        };
        assert_eq!(begun(&mut cookies, 1), 4);
        let all: usize = (2..100).map(|port| begun(&mut cookies, port)).sum();
        assert_eq!(all, 60);
    }
}
