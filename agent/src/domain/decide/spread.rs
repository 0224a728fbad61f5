//! How much later than others a host of a group starts.

use std::time::Duration;

use super::view::View;
use crate::domain::order::{DEFAULT_SPREAD, Order, offset};
use crate::domain::source::{OrderKey, Source};
use crate::domain::span::Span;

/// How much later than others this host starts.
pub(super) fn spread(view: &View<'_>, key: &OrderKey, order: &Order) -> Duration {
    spread_within(view, key, order, Duration::MAX)
}

/// The same, and at most so much.
pub(super) fn spread_within(view: &View<'_>, key: &OrderKey, order: &Order, most: Duration) -> Duration {
    let spread = order.spread.unwrap_or(DEFAULT_SPREAD);
    match key.source {
        Source::Host(_) => Duration::ZERO,
        Source::Group(_) => offset(Span(spread.0.min(most)), view.host, &order.identity),
    }
}
