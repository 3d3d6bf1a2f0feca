//! One inquiry of somebody who asks now and then: an operator who wants to know why.

use std::sync::Arc;

use crate::ask::AskError;
use crate::ask::Settings;
use crate::ask::verdict::Inquiry;
use crate::ask::verdict::Ruling;
use crate::ask::verdict::fresh::Fresh;
use crate::ask::verdict::judge::Office;
use crate::catalog::dial::Dial;
use crate::metrics::Metrics;

/// Asks on connections of its own, as of now.
///
/// # Errors
///
/// [`AskError`] where there is no answer.
pub async fn once(dial: &Dial, inquiry: &Inquiry) -> Result<Ruling, AskError> {
    let settings = Settings::default();
    let metrics = Arc::new(Metrics::default());
    let office = Office { dial: dial.clone(), settings, metrics };
    let asking = Box::pin(office.ask(inquiry, None, &mut Fresh::default())).await;
    asking.1.map(|judged| judged.ruling).map_err(|error| error.told(&settings))
}
