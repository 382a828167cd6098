//! How groups change their keys: what an operator sets.

use serde_json::json;

use crate::orders::add;
use crate::served::Home;

/// REQUIREMENTS, W-16: chosen by group, kept, audited; legacy sharing is off until it is
/// allowed.
#[test]
fn a_group_is_set_and_stays_so() {
    let home = Home::founded();
    let server = home.serve();
    add(&server, "alice");
    server.order("/v1/groups", json!({"name": "ops", "members": ["alice"]}));
    let first = json!({"change": "hitless", "stragglers": "follow", "legacy_sharing": false});
    assert_eq!(server.report("/v1/groups/ops")["group"]["policy"], first);

    let path = "/v1/groups/ops/policy";
    let would = server.order(path, json!({"change": "barrier", "dry_run": true}));
    assert_eq!(
        (&would["dry_run"], &would["before"]),
        (&json!(true), &first)
    );
    assert_eq!(would["after"]["change"], "barrier");
    assert_eq!(server.report("/v1/groups/ops")["group"]["policy"], first);

    let order = json!({"change": "barrier", "stragglers": "leave-out", "why": {"ticket": "T-3"}});
    let set = server.order(path, order);
    let second = json!({"change": "barrier", "stragglers": "leave-out", "legacy_sharing": false});
    assert_eq!((&set["before"], &set["after"]), (&first, &second));
    assert_eq!(set.get("warning"), None);
    let entry = &server.report("/v1/audit?last=1")["entries"][0];
    assert_eq!(
        (&entry["action"], &entry["ticket"]),
        (&json!("group set"), &json!("T-3"))
    );
    assert_eq!(
        entry["outcome"],
        "change barrier, stragglers leave-out, legacy sharing off"
    );

    let allowed = server.order(path, json!({"legacy_sharing": true}));
    assert_eq!(
        allowed["after"]["stragglers"], "leave-out",
        "what is not named stays"
    );
    let warning = allowed["warning"].as_str().expect("a warning");
    assert!(warning.contains("MISTY1"), "{warning}");

    for (bad, code) in [
        (json!({}), "KF-3301"),
        (json!({"dry_run": true}), "KF-3301"),
        (json!({"change": "sometimes"}), "KF-3301"),
    ] {
        let (status, problem) = server.post(path, &bad.to_string());
        assert_eq!((status, &problem["code"]), (400, &json!(code)), "{bad}");
    }
    let (status, _) = server.post("/v1/groups/none/policy", "{\"legacy_sharing\":true}");
    assert_eq!(status, 404);
    let before = server.report("/v1/groups");
    server.end();
    assert_eq!(home.serve().report("/v1/groups"), before);
}
