//! Finds the entries that fit a query: through the index, and without.
//!
//! The index says which blocks can hold an answer, and in them which entries; those are read from
//! the log, and decide. What the index does not have (the newest, incomplete block; a row that does
//! not read) is looked through. No entry is copied but those that are found, and of those no more
//! than one block's at once. The invariant: an answer holds only entries that were read from the log,
//! each once, in order.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::Ordering;

use super::block::BLOCK_ENTRIES;
use super::disk::Disk;
use super::index::{Index, IndexFault};
use super::log::Place;
use super::posting::{
    Block, Field, Posting, Postings, block_key, postings_key, value_key, value_number, value_text,
};
use super::query::{Condition, Conditions, Order, Query};
use super::reader::{EntryView, Reader};

/// Values that one condition may name in the index; a condition that names more narrows nothing.
const VALUES_NAMED_MAX: usize = 65_536;

/// An entry that was found; its body is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its index.
    pub index: u64,
    /// The bytes that are hashed: one JSON object.
    pub json: Vec<u8>,
    /// Where its batch stands: what [`Reader::entries_at`] takes as a hint.
    pub batch: Place,
}

/// Takes what is found, until it breaks.
pub type Visit<'v> = dyn FnMut(Found) -> ControlFlow<()> + 'v;

/// The entries that fit `query`, in the order it asks for, at most as many as it says; `index` spares
/// most of the reading.
pub fn search<D: Disk>(
    reader: &Reader<D>,
    index: Option<&Index>,
    query: &Query,
    visit: &mut Visit<'_>,
) -> Result<(), IndexFault> {
    let conditions = query.conditions();
    let plan = index.map(|index| Plan::new(index, &conditions)).transpose()?;
    let mut search = Search { reader, conditions: &conditions, left: query.limit };
    // A broken flow is a visitor that has enough.
    match query.order {
        Order::OldestFirst => search.oldest_first(plan.as_ref(), visit)?,
        Order::NewestFirst => search.newest_first(plan.as_ref(), visit)?,
    }
    .is_break();
    Ok(())
}

/// The same, collected.
pub fn find<D: Disk>(
    reader: &Reader<D>,
    index: Option<&Index>,
    query: &Query,
) -> Result<Vec<Found>, IndexFault> {
    let mut all = Vec::new();
    search(reader, index, query, &mut |found| {
        all.push(found);
        ControlFlow::Continue(())
    })?;
    Ok(all)
}

/// What the index says to a query.
struct Plan<'s> {
    index: &'s Index,
    conditions: &'s Conditions<'s>,
    /// Entries that the index knows.
    applied: u64,
    /// For each condition the numbers of the values that fit it, ascending; `None` if those are too
    /// many to tell.
    numbers: Vec<Option<Vec<u32>>>,
    /// When the numbers were looked up.
    emptied: u64,
}

/// Which entries of a block to look at.
#[derive(Debug, PartialEq, Eq)]
enum Pick {
    Nothing,
    Whole,
    /// These, counted from the beginning of the block, ascending.
    These(Vec<u16>),
}

/// A stretch of the log to look at, from a place that stands before it.
#[derive(Debug)]
struct Stretch<'p> {
    range: Range<u64>,
    hint: Option<Place>,
    /// The entries of it, counted from `base`; all, if there is no list.
    only: Option<(&'p [u16], u64)>,
}

struct Search<'s, D: Disk> {
    reader: &'s Reader<D>,
    conditions: &'s Conditions<'s>,
    /// How many more entries are wanted.
    left: usize,
}

impl<'s> Plan<'s> {
    fn new(index: &'s Index, conditions: &'s Conditions<'s>) -> Result<Self, IndexFault> {
        let emptied = index.emptied.load(Ordering::SeqCst);
        let applied = index.applied_upto()?;
        let numbers = conditions.each.iter().map(|condition| numbers(index, condition));
        let numbers = numbers.collect::<Result<_, _>>()?;
        Ok(Self { index, conditions, applied, numbers, emptied })
    }

    /// The blocks of the index that stand in the range asked for.
    fn blocks(&self) -> Range<u64> {
        let known = self.applied / BLOCK_ENTRIES;
        let Conditions { from, to, .. } = self.conditions;
        (from / BLOCK_ENTRIES).min(known)..to.div_ceil(BLOCK_ENTRIES).min(known)
    }

    /// Calls `look` with the stretches of a block that may hold an answer, in order.
    fn stretches(
        &self,
        block: u64,
        newest_first: bool,
        look: &mut dyn FnMut(&Stretch<'_>) -> Result<ControlFlow<()>, IndexFault>,
    ) -> Result<ControlFlow<()>, IndexFault> {
        let rows = (self.index.db.get(block_key(block))?, self.index.db.get(postings_key(block))?);
        let base = block * BLOCK_ENTRIES;
        let row = rows.0.as_deref().and_then(Block::decode);
        let postings = rows.1.as_deref().and_then(Postings::decode);
        // Rows of another numbering, and rows that do not read, hide no entry.
        let is_same = self.index.emptied.load(Ordering::SeqCst) == self.emptied;
        let (Some(row), Some(postings), true) = (row, postings, is_same) else {
            let range = self.within(base..base + BLOCK_ENTRIES);
            return look(&Stretch { range, hint: None, only: None });
        };
        let picked = self.pick(&row, &postings);
        let all: Vec<u16>;
        let entries = match &picked {
            Pick::Nothing => return Ok(ControlFlow::Continue(())),
            Pick::These(entries) => entries,
            Pick::Whole => {
                all = (0..u16::try_from(BLOCK_ENTRIES).unwrap_or(u16::MAX)).collect();
                &all
            }
        };
        // Those that are found from one place are read in one go.
        let mut groups: Vec<&[u16]> = entries
            .chunk_by(|one, other| postings.place_before(*one) == postings.place_before(*other))
            .collect();
        if newest_first {
            groups.reverse();
        }
        for group in groups {
            let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
            let range = self.within(base + u64::from(*first)..base + u64::from(*last) + 1);
            let only = matches!(picked, Pick::These(_)).then_some((group, base));
            let stretch = Stretch { range, hint: postings.place_before(*first), only };
            if look(&stretch)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn within(&self, range: Range<u64>) -> Range<u64> {
        range.start.max(self.conditions.from)..range.end.min(self.conditions.to)
    }

    fn pick(&self, row: &Block<'_>, postings: &Postings<'_>) -> Pick {
        if !self.conditions.may_fit(row.earliest, row.latest) {
            return Pick::Nothing;
        }
        let mut picked: Option<Vec<u16>> = None;
        for numbers in self.numbers.iter().flatten() {
            let positions = positions(row, numbers);
            if positions.is_empty() {
                return Pick::Nothing;
            }
            if let Some(entries) = listed(row, postings, &positions) {
                picked = Some(match picked {
                    None => entries,
                    Some(picked) => common(&picked, &entries),
                });
            }
        }
        match picked {
            None => Pick::Whole,
            Some(entries) if entries.is_empty() => Pick::Nothing,
            Some(entries) => Pick::These(entries),
        }
    }

    /// A place before the first entry that the index does not know.
    fn end_place(&self) -> Result<Option<Place>, IndexFault> {
        let Some(last) = (self.applied / BLOCK_ENTRIES).checked_sub(1) else { return Ok(None) };
        let row = self.index.db.get(postings_key(last))?;
        let postings = row.as_deref().and_then(Postings::decode);
        let end = u16::try_from(BLOCK_ENTRIES - 1).unwrap_or(u16::MAX);
        Ok(postings.and_then(|postings| postings.place_before(end)))
    }
}

/// Where in a block the values with these numbers stand among its values.
fn positions(row: &Block<'_>, numbers: &[u32]) -> Vec<usize> {
    let values = row.numbers().enumerate();
    if numbers.len() < 64 {
        return numbers.iter().filter_map(|number| row.position(*number)).collect();
    }
    let fitting = values.filter(|(_, number)| numbers.binary_search(number).is_ok());
    fitting.map(|(position, _)| position).collect()
}

/// The entries of a block that have one of the values at `positions`, ascending; `None` if they are
/// not listed.
fn listed(row: &Block<'_>, postings: &Postings<'_>, positions: &[usize]) -> Option<Vec<u16>> {
    let is_open = |position: &usize| {
        let number = row.numbers().nth(*position);
        Field::ALL.iter().any(|field| number == Some(field.open_number()))
    };
    if positions.iter().any(is_open) {
        return None;
    }
    let mut entries = Vec::new();
    if let [position] = positions {
        return postings.at(*position)?.entries;
    }
    let mut wanted = positions.iter().copied().peekable();
    for (position, Posting { entries: list, .. }) in postings.each().enumerate() {
        if wanted.peek() == Some(&position) {
            entries.extend(list?);
            wanted.next();
        }
    }
    if wanted.peek().is_some() {
        return None;
    }
    entries.sort_unstable();
    entries.dedup();
    Some(entries)
}

fn common(one: &[u16], other: &[u16]) -> Vec<u16> {
    one.iter().copied().filter(|entry| other.binary_search(entry).is_ok()).collect()
}

/// The numbers of the values that fit a condition, and those of open fields, ascending.
fn numbers(index: &Index, condition: &Condition<'_>) -> Result<Option<Vec<u32>>, IndexFault> {
    let (beginning, is_all) = condition.wanted.beginning();
    let mut numbers = Vec::new();
    for field in condition.fields {
        numbers.push(field.open_number());
        let key = value_key(*field, beginning);
        if is_all {
            numbers.extend(index.db.get(key)?.and_then(|bytes| value_number(&bytes)));
            continue;
        }
        let mut seen = 0;
        for row in index.db.scan_prefix(key) {
            let (key, number) = row?;
            seen += 1;
            if seen > VALUES_NAMED_MAX {
                return Ok(None);
            }
            if value_text(&key).is_some_and(|text| condition.wanted.fits(text)) {
                numbers.extend(value_number(&number));
            }
        }
    }
    numbers.sort_unstable();
    Ok(Some(numbers))
}

impl<D: Disk> Search<'_, D> {
    fn oldest_first(
        &mut self,
        plan: Option<&Plan<'_>>,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, IndexFault> {
        let mut tail = self.conditions.from;
        let mut hint = None;
        if let Some(plan) = plan {
            for block in plan.blocks() {
                let flow =
                    plan.stretches(block, false, &mut |stretch| self.pass(stretch, visit))?;
                if flow.is_break() {
                    return Ok(flow);
                }
            }
            if tail < plan.applied {
                (tail, hint) = (plan.applied, plan.end_place()?);
            }
        }
        self.pass(&Stretch { range: tail..self.conditions.to, hint, only: None }, visit)
    }

    fn newest_first(
        &mut self,
        plan: Option<&Plan<'_>>,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, IndexFault> {
        let mut tail = self.conditions.from;
        let mut hint = None;
        if let Some(plan) = plan
            && tail < plan.applied
        {
            (tail, hint) = (plan.applied, plan.end_place()?);
        }
        let range = tail..self.conditions.to;
        if self.pass_back(&Stretch { range, hint, only: None }, visit)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let Some(plan) = plan else { return Ok(ControlFlow::Continue(())) };
        for block in plan.blocks().rev() {
            let flow =
                plan.stretches(block, true, &mut |stretch| self.pass_back(stretch, visit))?;
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Hands on what fits of a stretch, in order.
    fn pass(
        &mut self,
        stretch: &Stretch<'_>,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, IndexFault> {
        let mut flow = self.is_done();
        if flow.is_break() || stretch.range.is_empty() {
            return Ok(flow);
        }
        let (conditions, left) = (self.conditions, &mut self.left);
        let Range { start, end } = stretch.range;
        self.reader.visit(start, end, stretch.hint, &mut |entry| {
            if stretch.has(entry.index) && conditions.fit(entry.json) {
                *left -= 1;
                flow = visit(Found::of(entry));
                if *left == 0 {
                    flow = ControlFlow::Break(());
                }
            }
            flow
        })?;
        Ok(flow)
    }

    /// Hands on what fits of a stretch, the last first.
    fn pass_back(
        &mut self,
        stretch: &Stretch<'_>,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, IndexFault> {
        if self.is_done().is_break() || stretch.range.is_empty() {
            return Ok(self.is_done());
        }
        let mut last = VecDeque::new();
        let Range { start, end } = stretch.range;
        self.reader.visit(start, end, stretch.hint, &mut |entry| {
            if stretch.has(entry.index) && self.conditions.fit(entry.json) {
                if last.len() == self.left {
                    last.pop_front();
                }
                last.push_back(Found::of(entry));
            }
            ControlFlow::Continue(())
        })?;
        for found in last.into_iter().rev() {
            self.left -= 1;
            if visit(found).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(self.is_done())
    }

    fn is_done(&self) -> ControlFlow<()> {
        if self.left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Stretch<'_> {
    fn has(&self, index: u64) -> bool {
        self.only.is_none_or(|(entries, base)| {
            let entry = index.checked_sub(base).and_then(|entry| u16::try_from(entry).ok());
            entry.is_some_and(|entry| entries.binary_search(&entry).is_ok())
        })
    }
}

impl Found {
    fn of(entry: EntryView<'_>) -> Self {
        Self { index: entry.index, json: entry.json.to_vec(), batch: entry.batch }
    }
}
