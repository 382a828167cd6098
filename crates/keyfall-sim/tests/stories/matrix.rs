//! The theft matrix (DESIGN section 11, invariants 6 and 7; REQUIREMENTS F-12, R-002, R-005, R-069,
//! T-01, T-02, W-01, W-03, W-05; FORMATS section 3.1): what a thief reads who has the whole memory
//! and disk of a terminal and every recording, as the fleet answers.

use std::time::Duration;

use keyfall_protocol::ids::UnixSeconds;
use keyfall_sim::{Answer, CLOCK_SLACK, Cell, TheftPlan, TheftRun, steal_preloaded};

/// Ten-minute keys and two hours of life, so that all rows take a second.
fn plan() -> TheftPlan {
    TheftPlan {
        period: 600,
        keep_time: 120,
        before: 3600,
        reported_after: 900,
        after: 3600,
        every: 10,
        phase: 119,
    }
}

/// Plays one row; whatever the row, nobody else is disturbed and nothing opens beyond the matrix.
fn play(plan: &TheftPlan, answer: Answer) -> TheftRun {
    let run = plan.run(3, answer);
    assert_eq!(run.opened_beyond(), 0, "{answer:?}: thief_opened");
    assert_eq!(run.lost, 0, "the others talk on");
    assert!(run.violations.is_empty(), "{:#?}", run.violations);
    assert_eq!(run.of_others.opened(), 0);
    assert!(run.of_others.recorded > 0);
    run
}

fn all(cell: &Cell) -> bool {
    cell.recorded > 0 && cell.opened() == cell.recorded
}

fn nothing(cell: &Cell) -> bool {
    cell.recorded > 0 && cell.opened() == 0
}

/// The past of a terminal whose keys were taken out: bounded, and not empty.
fn is_bounded_past(plan: &TheftPlan, run: &TheftRun) {
    for cell in [&run.recorded_media, &run.recorded_distributions] {
        let oldest = cell.oldest.expect("the newest opens");
        assert!(oldest <= plan.bound() + CLOCK_SLACK, "{oldest:?}");
        assert!(cell.opened() < cell.recorded / 2, "most stays closed");
    }
    assert!(all(&run.media_before_the_order));
}

#[test]
fn without_an_answer_the_future_is_open_and_the_past_is_bounded() {
    let run = play(&plan(), Answer::RenewOnly);
    is_bounded_past(&plan(), &run);
    assert!(all(&run.media_after_the_order), "one epoch: all of it");
    assert!(run.opened_allowed() > 0);
    let exposure = run.exposure.expect("the server knows the terminal");
    assert_eq!(exposure.excluded_at, None);
    assert!(exposure.groups.iter().all(|group| group.until.is_none()));
}

#[test]
fn after_a_deletion_that_was_heard_there_is_nothing_to_steal() {
    let run = play(&plan(), Answer::DeleteHeard);
    assert!(nothing(&run.recorded_media));
    assert!(nothing(&run.recorded_distributions));
    assert!(nothing(&run.media_before_the_order));
    assert!(nothing(&run.media_after_the_order));
    // Until then the thief had a terminal that works.
    assert!(run.traffic.iter().any(|&(at, read)| at < 900 && read));
    assert!(run.traffic.iter().all(|&(at, read)| at <= 900 || !read));
}

#[test]
fn a_jammed_deletion_changes_nothing_for_the_thief() {
    let jammed = play(&plan(), Answer::DeleteJammed);
    let none = play(&plan(), Answer::RenewOnly);
    is_bounded_past(&plan(), &jammed);
    assert!(all(&jammed.media_after_the_order));
    assert_eq!(jammed.recorded_media, none.recorded_media);
    assert_eq!(jammed.recorded_distributions, none.recorded_distributions);
}

#[test]
fn an_exclusion_shuts_the_thief_out_whether_or_not_the_terminal_hears_it() {
    for answer in [Answer::ExcludeHeard, Answer::ExcludeJammed] {
        let run = play(&plan(), answer);
        is_bounded_past(&plan(), &run);
        assert!(nothing(&run.media_after_the_order), "{answer:?}");
        assert!(nothing(&run.distributions_after_the_order), "{answer:?}");
        let exposure = run.exposure.expect("the server knows the terminal");
        let left = exposure.groups.iter().all(|group| group.until.is_some());
        assert!(left && exposure.excluded_at.is_some());
    }
}

/// The positive control: without renewal everything is open, so the matrix is not empty by itself.
#[test]
fn without_renewal_everything_is_open() {
    let run = play(&plan(), Answer::NoRenewal);
    assert!(all(&run.recorded_media));
    assert!(all(&run.media_before_the_order));
    assert!(all(&run.media_after_the_order));
}

/// Invariant 7 with its exact bound: the group's key steps with G, so no distribution under one G
/// carries a generation from before it. Stolen at any moment of a period, the oldest media that
/// open are at most rank-1 period + keep time old, and at the worst moment they are that old. The
/// server's own statement says the same or more.
#[test]
fn the_exposure_of_the_past_is_the_rank_one_period_and_the_keep_time_and_no_more() {
    let bound = plan().bound();
    assert_eq!(bound, Duration::from_secs(720));
    let mut worst = Duration::ZERO;
    for phase in [0, 1, 5, 29, 31, 60, 118, 119, 120, 122, 123, 170, 300, 598] {
        let plan = TheftPlan {
            phase,
            reported_after: 60,
            after: 120,
            ..plan()
        };
        let run = play(&plan, Answer::RenewOnly);
        let media = run.recorded_media.oldest.expect("the newest opens");
        let distribution = run.recorded_distributions.oldest.unwrap_or_default();
        assert!(media.max(distribution) <= bound + CLOCK_SLACK, "{phase}");
        worst = worst.max(media);
        let exposure = run.exposure.expect("the server knows the terminal");
        let age = |from: UnixSeconds| exposure.at.since(from);
        let stated = age(exposure.groups[0].from);
        // What was recorded in the second in which a key began is not older than it.
        assert!(
            media.as_secs() <= u64::from(stated) + 1,
            "phase {phase}: {media:?}, {stated} s"
        );
        assert!(distribution.as_secs() <= u64::from(age(exposure.distributions_from)) + 1);
        assert!(u64::from(stated) <= bound.as_secs(), "phase {phase}");
    }
    assert!(worst + Duration::from_secs(11) > bound, "{worst:?}");
}

/// REQUIREMENTS R-110: with keys put in beforehand everything that comes is open, and nothing helps.
#[test]
fn preloaded_keys_open_everything_that_comes() {
    let run = steal_preloaded(&plan(), 52_560, 1);
    assert_eq!(run.stored, 1_681_920);
    assert!(run.traffic.iter().all(|&(at, read)| read == (at >= -119)));
    let short = steal_preloaded(&plan(), 8, 1);
    assert!(
        short.traffic.len() < run.traffic.len(),
        "the stock runs out"
    );
}
