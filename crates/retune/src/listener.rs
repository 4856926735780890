use retune_model::hub::{Transfer, Watch};
use retune_train::{Event, Observer};

/// Who is told what a run does.
pub trait Listener: Observer {
    /// A sentence about something that was found or chosen.
    fn say(&mut self, sentence: &str);
    /// Some more bytes of a model are here. The last call has all of them.
    fn transfer(&mut self, _: Transfer<'_>) {}
}

/// Nobody.
pub(crate) struct Silent;

impl Observer for Silent {
    fn event(&mut self, _: &Event) -> std::io::Result<()> {
        Ok(())
    }
}

impl Listener for Silent {
    fn say(&mut self, _: &str) {}
}

/// A listener as the hub knows one.
pub(crate) struct Told<'a>(pub &'a mut dyn Listener);

impl Watch for Told<'_> {
    fn say(&mut self, sentence: &str) {
        self.0.say(sentence);
    }
    fn transfer(&mut self, transfer: Transfer<'_>) {
        self.0.transfer(transfer);
    }
}
