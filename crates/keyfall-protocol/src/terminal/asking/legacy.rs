//! Asking in the suite rsa-misty1: by a terminal that was given an RSA key, where the root lists the
//! suite before all others.

use super::request::ExpectKeyDis;
use crate::command::ListedKey;
use crate::ids::UnixSeconds;
use crate::sharing::message::{AckStatus, Cookie, KeyReq, Message};
use crate::sharing::rsa_misty1::{
    IdInformation, Opened, Request, RsaPublic, RsaSecret, open_key_dis, seal_key_req,
};
use crate::stats::DropReason;
use crate::terminal::Terminal;

impl Terminal {
    /// A key of its own, in place of the one before.
    pub(in crate::terminal) fn take_legacy_key(&mut self, key: RsaSecret) {
        if let Some(user) = self.user.as_mut() {
            user.legacy_key = Some(key);
            self.dirty = true;
        }
    }

    /// The public half of its own key; `None` where it has none, or is locked.
    #[must_use]
    pub fn legacy_key(&self) -> Option<&RsaPublic> {
        let user = self.user.as_ref()?;
        user.legacy_key.as_ref().map(RsaSecret::public)
    }

    /// The server's key, as it was fetched.
    pub(super) fn rsa_key(&self) -> Option<&RsaPublic> {
        let fetched = self.asking.rsa.as_ref();
        fetched.filter(|key| key.is_listed_in(&self.key_set))
    }

    /// The message, and the KEY-REQ in it.
    pub(super) fn legacy_request(
        &self,
        nonce: [u8; 16],
        time: UnixSeconds,
        cookie: Option<Cookie>,
    ) -> Option<(Vec<u8>, Vec<u8>)> {
        let id = IdInformation {
            terminal: self.identity.number,
            nonce,
            time,
        };
        let key_req = seal_key_req(self.rsa_key()?, &id);
        let request = KeyReq::RsaMisty1(&key_req);
        let message = Message::KeyReq { request, cookie }.encode();
        Some((message, key_req))
    }

    /// Checksums and nonce hold, or nothing has happened (KR-302, KR-303). Who sees the request can
    /// send wrong answers to it: a few in a second are looked at, no more (KR-385).
    pub(super) fn opened_legacy(
        &mut self,
        open: &ExpectKeyDis,
        key_req: &[u8],
        key_dis: &[u8],
    ) -> Result<(Opened, ListedKey), DropReason> {
        if !self.asking.openings.take(self.now, 0) {
            return Err(DropReason::VerifyBudget);
        }
        let authority = self.authority_of_legacy()?;
        let own = self.user.as_ref();
        let own = own.and_then(|user| user.legacy_key.as_ref());
        let request = Request {
            key_req,
            nonce: open.nonce,
        };
        own.and_then(|own| open_key_dis(own, request, key_dis))
            .map(|opened| (opened, authority))
            .ok_or(DropReason::DoesNotOpen)
    }

    pub(super) fn take_legacy(
        &mut self,
        open: &ExpectKeyDis,
        (opened, authority): (Opened, ListedKey),
    ) {
        let status = match self.take_legacy_keys(opened.keys, &authority) {
            Ok(()) => AckStatus::All,
            Err(_) => AckStatus::OutOfBounds,
        };
        let mac = opened.exchange.mac(status.number());
        self.expect_store(open, status, mac, (false, false));
    }
}
