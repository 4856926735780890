use retune_train::Observer;

/// Who is told what a run does.
pub trait Listener: Observer {
    /// A sentence about something that was found or chosen.
    fn say(&mut self, sentence: &str);
}
