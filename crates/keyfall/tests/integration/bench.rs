//! `keyfall bench sharing`: that it measures, says and draws all that is promised. No figure is
//! judged here; a machine that does other things would make a limit miss.

use serde_json::Value;

use crate::ran::keyfall;

/// F-04 to F-08, F-10: every figure by its name, each limit with what was got, and the chart.
#[test]
fn a_quick_bench_of_sharing_says_and_draws_every_figure() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let (chart, short) = (path("sharing.svg"), path("short.json"));
    std::fs::write(&short, r#"[{"bits":512,"until_ack":412.5}]"#).unwrap();
    let words = ["bench", "sharing", "--quick", "--json", "--svg", &chart];
    let report = keyfall(words.into_iter().chain(["--short-rsa", &short])).document();

    let positive = |figure: &Value| figure.as_f64().is_some_and(|it| it > 0.0);
    for name in [
        "barrier_1000_ms",
        "barrier_1000_server_ms",
        "barrier_1000_wall_ms",
        "sequential_1000_ms",
        "sequential_1000_with_routers_ms",
        "restart_1000_s",
    ] {
        assert!(positive(&report[name]), "{name}: {}", report[name]);
    }
    assert_eq!(report["hitless_1000_lost"], 0);
    assert_eq!(report["hitless"]["delayed"], 0);
    for suite in ["psk", "hpke", "hpke-pq"] {
        for name in [
            "key_req_per_second",
            "key_req_per_second_udp",
            "restart_100000_s",
        ] {
            assert!(positive(&report[name][suite]), "{name} of {suite}");
        }
        for part in ["until_ack", "stop_to_start", "udp_until_ack"] {
            assert!(positive(&report["parts"][suite][part]), "{part} of {suite}");
        }
        let fraction = &report["fraction_of_raw_public_key_rate"][suite];
        assert_eq!(positive(fraction), suite != "psk", "{fraction} of {suite}");
    }
    let stops = report["stop"].as_array().unwrap();
    let sizes: Vec<_> = stops
        .iter()
        .map(|it| (&it["members"], &it["measured"]))
        .collect();
    let reckoned = |members: u32| (Value::from(members), Value::from(false));
    assert!(stops[0]["measured"] == true && stops[0]["members"] == 1);
    for (members, measured) in [1_000, 10_000, 100_000].map(reckoned) {
        assert!(sizes.contains(&(&members, &measured)), "{members}");
    }
    let simulated = &report["simulated"][0];
    for name in ["sequential_ms", "barrier_ms", "hitless_ms", "restart_s"] {
        assert!(positive(&simulated[name]), "{name}: {simulated}");
    }
    for name in ["hitless_late", "left"] {
        assert_eq!(simulated[name], 0, "{name}: {simulated}");
    }
    assert_eq!(report["rsa_misty1"][0]["bits"], 2048);
    assert_eq!(report["short_rsa"][0]["bits"], 512);

    for limit in report["limits"].as_array().unwrap() {
        let whole =
            limit["what"].is_string() && limit["limit"].is_number() && limit["got"].is_number();
        assert!(whole && limit["met"].is_boolean(), "{limit}");
    }
    let methods: Vec<_> = report["renewals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["method"])
        .collect();
    for method in [
        "preloaded keys",
        "agreement of each pair",
        "a key distribution centre",
        "wrapped for each",
        "ours",
    ] {
        assert!(methods.contains(&&Value::from(method)), "{method}");
    }

    let chart = std::fs::read_to_string(chart).unwrap();
    assert!(chart.starts_with("<svg ") && chart.ends_with("</svg>\n"));
    for words in [
        "hitless: none",
        "rsa-misty1, the product",
        "by another library",
        "psk: ",
    ] {
        assert!(chart.contains(words), "{words}");
    }
}

#[test]
fn a_file_without_rsa_lengths_is_refused_before_anything_is_measured() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("short.json");
    std::fs::write(&file, "{}").unwrap();
    let words = [
        "bench",
        "sharing",
        "--quick",
        "--short-rsa",
        file.to_str().unwrap(),
    ];
    keyfall(words).refuses(1, "KF-3003", "`bench/run.sh short-rsa` writes");
}
