//! What a survey makes of batches in order, doubled, beyond holes, and of two branches.

use super::*;

/// The first position and count of holes, the length, and how many batches and branches there are.
fn shape(survey: &Survey, author: &Author) -> (Vec<(u64, u64)>, u64, u64, usize) {
    let span = survey.log(&author.log()).unwrap();
    let holes = span.holes().iter().map(|(from, to)| (from.0, to.0)).collect();
    (holes, span.len().0, span.batches(), span.branches().count())
}

#[test]
fn a_whole_log_is_counted_with_its_head_and_its_authors_name() {
    let (mut survey, mut author) = (Survey::default(), Author::new(1));
    let batches = [author.open("wren"), author.say(1, 3)];
    for batch in &batches {
        assert_eq!(survey.take(batch), Surveyed::Next);
        assert_eq!(survey.take(batch), Surveyed::Again);
    }
    assert_eq!(shape(&survey, &author), (vec![], 4, 2, 0));
    let span = survey.log(&author.log()).unwrap();
    assert_eq!((span.name(), span.opens_well(), span.events()), ("wren", true, 4));
    assert_eq!(span.head(), batches[1].head());
    let marks: Vec<_> = batches.iter().map(|batch| (batch.header().first_seq, batch.head().prefix())).collect();
    assert_eq!(span.marks().collect::<Vec<_>>(), marks);
}

#[test]
fn holes_are_told_and_the_log_goes_on_behind_them() {
    let (mut survey, mut author) = (Survey::default(), Author::new(1));
    let [_, b, _, d, e] = [author.open("wren"), author.say(1, 2), author.say(2, 1), author.say(3, 1), author.say(4, 1)];
    assert_eq!(survey.take(&b), Surveyed::Hole { from: Seq(1), to: Seq(1) });
    assert_eq!(survey.take(&d), Surveyed::Hole { from: Seq(4), to: Seq(4) });
    assert_eq!(survey.take(&e), Surveyed::Next);
    assert_eq!(shape(&survey, &author), (vec![(1, 1), (4, 4)], 6, 3, 0));
    let span = survey.log(&author.log()).unwrap();
    assert!(span.opens_well(), "its beginning is not there to be judged");
}

#[test]
fn another_branch_is_told_once() {
    let (mut survey, mut author) = (Survey::default(), Author::new(1));
    let first = author.open("wren");
    let mut clone = author.clone();
    let (ours, theirs, further) = (author.say(1, 1), clone.say(2, 1), clone.say(3, 1));
    for batch in [&first, &ours] {
        assert_eq!(survey.take(batch), Surveyed::Next);
    }
    for batch in [&theirs, &further] {
        assert_eq!(survey.take(batch), Surveyed::Branch);
        assert_eq!(survey.take(batch), Surveyed::Again);
    }
    assert_eq!(shape(&survey, &author), (vec![], 2, 4, 2));
}

#[test]
fn a_log_that_opens_without_an_admission_does_not_open_well() {
    let (mut survey, mut author) = (Survey::default(), Author::new(1));
    assert_eq!(survey.take(&author.say(1, 1)), Surveyed::Next);
    assert!(!survey.log(&author.log()).unwrap().opens_well());
}
