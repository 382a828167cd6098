//! Whoever destroys is asked first: on a terminal by a question, elsewhere by --yes.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::explain::Code;
use crate::output::Failure;

/// Shows `reach` and asks for a yes. With `yes` nothing is asked or shown.
///
/// # Errors
/// [`Code::NotConfirmed`] where the answer is no, and where nobody is there to answer.
pub(super) fn confirm(reach: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let sentence = "this is not done unasked: look at it with --dry-run, then give --yes";
        return Err(Failure::new(Code::NotConfirmed, sentence));
    }
    let mut answer = String::new();
    let asked = write!(io::stderr(), "{reach}\nType yes to go on: ")
        .and_then(|()| io::stderr().flush())
        .and_then(|()| io::stdin().lock().read_line(&mut answer));
    match asked {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        Ok(_) => Err(Failure::new(
            Code::NotConfirmed,
            "the answer was not yes: nothing was changed",
        )),
        Err(error) => Err(Failure::new(
            Code::NotConfirmed,
            format!("nobody could be asked: {error}; nothing was changed"),
        )),
    }
}
