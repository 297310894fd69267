//! x
use super::*;
pub(super) fn run(_d: Option<std::time::Duration>, _b: bool) -> Result<Answer, CliFailure> { Ok(Answer::No) }
