//! Sizes as people write them.

/// A size with its unit; GB counts in thousands, GiB in 1024, as everywhere.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "kib" | "k" => 1024.0,
        "mib" | "m" => 1024.0 * 1024.0,
        "gib" | "g" => 1024.0 * 1024.0 * 1024.0,
        "none" | "unlimited" => {
            return Err("expected a size such as 2GiB; without a limit leave it out".into());
        }
        _ => return Err("expected bytes, or a number with KB, MB, GB, KiB, MiB or GiB".into()),
    };
    match number.parse::<f64>() {
        Ok(number) if number * factor >= 1.0 && number * factor < 1e18 => Ok((number * factor) as usize),
        _ => Err("expected a number above 0, such as 900MiB or 4GB".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("1.5GiB"), Ok(3 << 29));
        assert_eq!(size("900 MiB"), Ok(900 << 20));
        assert_eq!((size("4GB"), size("77")), (Ok(4_000_000_000), Ok(77)));
        for wrong in ["", "GiB", "0", "-1GB", "1TiBB", "1e9", "nan", "none"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
