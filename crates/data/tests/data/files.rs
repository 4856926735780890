//! Files made on the spot.

#![expect(clippy::expect_used, reason = "a test may stop at the first surprise")]

use std::path::{Path, PathBuf};

use retune_data::{DataError, ReadOptions, Row, Table, read_table};

/// A folder for one test's files; gone with it.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Folder(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).expect("a file in the temporary folder");
        path
    }
}

/// The table in a file of these bytes.
pub(crate) fn table_of(bytes: impl AsRef<[u8]>) -> Result<Table, DataError> {
    table_as(bytes, &ReadOptions::default())
}

/// The same, read as asked.
pub(crate) fn table_as(bytes: impl AsRef<[u8]>, options: &ReadOptions) -> Result<Table, DataError> {
    let folder = Folder::new();
    let path = folder.write("data.csv", bytes);
    read_table(&path, options)
}

/// All values, with `None` for a missing one.
pub(crate) fn values(table: &Table) -> Vec<Vec<Option<&'static str>>> {
    // Rows are read again and again; what a test compares may stay.
    let text = |value: &str| &*value.to_owned().leak();
    rows(table).map(|row| row.values().map(|value| value.map(text)).collect()).collect()
}

/// All rows.
pub(crate) fn rows(table: &Table) -> impl Iterator<Item = Row<'_>> {
    table.rows().map(|row| row.expect("a row that can be read again"))
}

/// The row at `index`.
pub(crate) fn row(table: &Table, index: usize) -> Row<'_> {
    table.row(index).expect("a row that can be read again").expect("so many rows")
}

/// The lines where the rows start.
pub(crate) fn lines(table: &Table) -> Vec<u64> {
    rows(table).map(|row| row.line()).collect()
}
