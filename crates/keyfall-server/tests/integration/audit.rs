//! The audit log tells who did what, and that nobody changed it.

use serde_json::json;

use crate::orders::add;
use crate::refusals::sql;
use crate::served::Home;

/// REQUIREMENTS R-026: every order is attributable.
#[test]
fn every_order_stands_with_actor_reason_and_ticket() {
    let home = Home::founded();
    let server = home.serve();
    add(&server, "alice");
    let why = json!({"reason": "weekly \"check\" äöü", "ticket": "T-1"});
    server.order(
        "/v1/groups",
        json!({"name": "ops", "members": ["alice"], "why": why}),
    );
    server.order("/v1/groups/ops/renew", json!({"why": {"ticket": "T-2"}}));
    let log = server.report("/v1/audit");
    let entries = log["entries"].as_array().expect("entries");
    let actions: Vec<_> = entries.iter().map(|entry| &entry["action"]).collect();
    assert_eq!(
        actions,
        [
            "server init",
            "server run",
            "terminal add",
            "group create",
            "renew"
        ]
    );
    assert_eq!(entries[3]["reason"], "weekly \"check\" äöü");
    assert_eq!(
        (&entries[3]["ticket"], &entries[4]["ticket"]),
        (&json!("T-1"), &json!("T-2"))
    );
    assert_eq!(entries[3]["actor"], entries[2]["actor"]);
    let numbers: Vec<_> = entries.iter().map(|entry| &entry["entry"]).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    let last = server.report("/v1/audit?last=2");
    assert_eq!(
        last["entries"].as_array().expect("entries")[..],
        entries[3..]
    );
}

#[test]
fn a_changed_removed_or_cut_entry_is_found() {
    for (change, broken_at) in [
        ("UPDATE audit SET actor = 'uid 1' WHERE entry = 3", 3),
        ("UPDATE audit SET reason = NULL WHERE entry = 4", 4),
        ("UPDATE audit SET reason = '' WHERE entry = 3", 3),
        ("UPDATE audit SET at = at + 1 WHERE entry = 1", 1),
        ("UPDATE audit SET at = -1 WHERE entry = 2", 2),
        ("UPDATE audit SET link = zeroblob(32) WHERE entry = 2", 2),
        ("UPDATE audit SET link = zeroblob(3) WHERE entry = 2", 2),
        ("DELETE FROM audit WHERE entry = 2", 2),
        ("DELETE FROM audit WHERE entry = 5", 5),
        ("DELETE FROM audit", 1),
        (
            "UPDATE audit SET entry = 99 WHERE entry = 3; UPDATE audit SET entry = 3 WHERE entry = 4;
             UPDATE audit SET entry = 4 WHERE entry = 99",
            3,
        ),
    ] {
        let home = Home::founded();
        let server = home.serve();
        add(&server, "alice");
        let why = json!({"reason": "first"});
        server.order("/v1/groups", json!({"name": "ops", "members": ["alice"], "why": why}));
        server.order("/v1/groups/ops/renew", json!({}));
        let verdict = server.report("/v1/audit/verify");
        assert_eq!((&verdict["whole"], &verdict["entries"]), (&json!(true), &json!(5)));
        sql(&home, change);
        let verdict = server.report("/v1/audit/verify");
        assert_eq!(verdict["whole"], false, "{change}");
        assert_eq!(verdict["broken_at"], broken_at, "{change}");
    }
}
