//! How often a training is evaluated and saved, from the words of a setting.

use std::time::Duration;

use retune_train::{EvalEvery, SaveEvery};

use crate::{Error, Result};

/// Epochs, or steps: `epoch`, `500`.
pub(crate) fn eval_every(value: Option<&str>) -> Result<EvalEvery> {
    match value {
        None | Some("epoch") => Ok(EvalEvery::Epoch),
        Some(steps) => match steps.parse() {
            Ok(steps) if steps > 0 => Ok(EvalEvery::Steps(steps)),
            _ => {
                let message = format!("expected epoch or a number of steps, got `{steps}`");
                Err(Error::Setting { flag: "eval-every", message })
            }
        },
    }
}

/// Steps, or a time: `500`, `30s`, `10m`, `10min`, `0.5h`.
pub(crate) fn save_every(value: Option<&str>) -> Result<SaveEvery> {
    let value = value.unwrap_or("10m");
    let seconds = [("s", 1.0), ("min", 60.0), ("m", 60.0), ("h", 3600.0)]
        .into_iter()
        .find_map(|(unit, seconds)| Some(value.strip_suffix(unit)?.trim().parse::<f64>().ok()? * seconds));
    match (value.parse(), seconds) {
        _ if value == "never" => Ok(SaveEvery::Never),
        (Ok(steps), _) if steps > 0 => Ok(SaveEvery::Steps(steps)),
        (_, Some(seconds)) if seconds > 0.0 && seconds <= 6e7 => {
            Ok(SaveEvery::Time(Duration::from_secs_f64(seconds)))
        }
        _ => {
            let message = format!(
                "expected steps, such as 500, a time, such as 30s, 10m or 2h, or never, got `{value}`"
            );
            Err(Error::Setting { flag: "save-every", message })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_come_by_steps_or_by_time() {
        let time = |seconds| SaveEvery::Time(Duration::from_secs(seconds));
        for (value, expected) in [
            ("500", SaveEvery::Steps(500)),
            ("never", SaveEvery::Never),
            ("30s", time(30)),
            ("10m", time(600)),
            ("0.5 min", time(30)),
            ("2h", time(7200)),
        ] {
            assert_eq!(save_every(Some(value)).unwrap(), expected, "{value}");
        }
        for value in ["", "h", "0s", "-2h", "nan h", "infs", "1e9h", "2d", "1.5"] {
            let error = save_every(Some(value)).unwrap_err().to_string();
            assert!(
                error.contains("such as 30s, 10m or 2h") && error.ends_with(&format!("got `{value}`")),
                "{error}"
            );
        }
    }
}
