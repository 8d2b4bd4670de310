//! The wall clock watched beside the monotonic one: its steps, and the newest time that is known to be right.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::Duration;
use tokio::time::Instant;

use super::believable::{Believable, FIRST_YEAR, Unbelievable};
use super::{Clock, Timestamp};

/// A difference between the clocks that is a step, and not a tick of the one that fell between two looks.
const STEP_MIN: Duration = Duration::seconds(1);
/// A step ahead by which what waits would be taken for old.
const LEAP_MIN: Duration = Duration::minutes(1);
/// An absence after which what waited is not given up at once: those it waited for could not reach the engine.
const ABSENCE_MAX: Duration = Duration::days(1);
/// The newest steps, which are kept for those who follow them.
const STEPS_MAX: usize = 64;

/// The wall clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it said, or would have said at this moment.
    pub from: Timestamp,
    /// What it says.
    pub to: Timestamp,
}

impl Step {
    /// By how much; negative for a step back.
    #[must_use]
    pub fn by(&self) -> Duration {
        self.to - self.from
    }
}

/// What outlives the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The newest time known to be right.
    pub known_at: Option<Timestamp>,
    /// When the clock leapt ahead last, by the time after the leap.
    pub leapt_at: Option<Timestamp>,
}

/// The wall clock and what is known of it. Cloning shares it. Whoever deletes, expires or gives up by age asks it.
#[derive(Clone, Debug)]
pub struct ClockWatch {
    clock: Clock,
    course: Arc<Mutex<Course>>,
}

impl ClockWatch {
    /// A watch that knows nothing yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let course = Course::new(clock.now(), Instant::now());
        Self { clock, course: Arc::new(Mutex::new(course)) }
    }

    /// The time of the clock that is watched.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.looked().0
    }

    /// Takes note, once, of what the database knows, which may be nothing. Before that nothing is believed.
    pub fn remember(&self, known: Known) {
        self.looked().1.remember(known);
    }

    /// The newest time that is known to be right, carried on to the present by the monotonic clock: of the database's
    /// ([`ClockWatch::remember`]) and of every look since at which the clock was believable. What came in meanwhile was
    /// stamped by this clock, so it is not newer. `None`: nothing is known.
    #[must_use]
    pub fn newest_seen(&self) -> Option<Timestamp> {
        let (_, course) = self.looked();
        course.newest_seen()
    }

    /// Whether something may be deleted by age now, and by which time: the one that was judged. `last_pass` is the time of
    /// the last pass that the database has.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, last_pass: Option<Timestamp>) -> Result<Timestamp, Unbelievable> {
        let (now, course) = self.looked();
        course.judge(last_pass).map(|()| now)
    }

    /// By which time something that waits for `wait` at most may be given up now. `None` while the clock is not believed,
    /// and after a leap ahead for as long as the wait is, since what has waited for a moment looks old then.
    #[must_use]
    pub fn may_give_up(&self, wait: Duration) -> Option<Timestamp> {
        let (now, course) = self.looked();
        course.may_give_up(wait).then_some(now)
    }

    /// Somebody who knows says that the clock is right: a person, or an answer with the same time from elsewhere.
    pub fn confirm(&self) {
        self.looked().1.confirm();
    }

    /// The steps that are newer than the first `seen` of all, oldest first. Whoever follows them counts them.
    #[must_use]
    pub fn steps_after(&self, seen: usize) -> Vec<Step> {
        let (_, course) = self.looked();
        course.steps_after(seen)
    }

    /// What is to outlive the process. `None` before [`ClockWatch::remember`].
    #[must_use]
    pub fn known(&self) -> Option<Known> {
        let (_, course) = self.looked();
        course.is_asked.then(|| course.to_keep())
    }

    /// Looks at both clocks.
    fn looked(&self) -> (Timestamp, MutexGuard<'_, Course>) {
        // A panic under the lock cannot leave a course half changed that matters: the next look sets it right.
        let mut course = self.course.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        course.look(now, Instant::now());
        (now, course)
    }
}

/// A time and the moment of the monotonic clock at which it was so.
#[derive(Clone, Copy, Debug)]
struct Mark {
    wall: Timestamp,
    moment: Instant,
}

impl Mark {
    /// The time that it is at this moment if it was right.
    fn carried_to(self, moment: Instant) -> Timestamp {
        let passed =
            Duration::from_std(moment.saturating_duration_since(self.moment)).unwrap_or(Duration::MAX);
        self.wall.checked_add_signed(passed).unwrap_or(Timestamp::MAX_UTC)
    }
}

/// What the looks add up to.
#[derive(Debug)]
struct Course {
    /// The last look.
    last: Mark,
    /// The newest time known to be right.
    known: Option<Mark>,
    /// Whether it is known what the database knows.
    is_asked: bool,
    /// The last leap ahead.
    leap: Option<Mark>,
    steps: VecDeque<Step>,
    /// How many older steps are kept no more.
    forgotten: usize,
}

impl Course {
    fn new(wall: Timestamp, moment: Instant) -> Self {
        let last = Mark { wall, moment };
        Self { last, known: None, is_asked: false, leap: None, steps: VecDeque::new(), forgotten: 0 }
    }

    fn look(&mut self, wall: Timestamp, moment: Instant) {
        let step = Step { from: self.last.carried_to(moment), to: wall };
        self.last = Mark { wall, moment };
        if step.by().abs() >= STEP_MIN {
            self.steps.push_back(step);
        }
        if self.steps.len() > STEPS_MAX {
            self.steps.pop_front();
            self.forgotten += 1;
        }
        if step.by() >= LEAP_MIN {
            self.leap = Some(self.last);
        }
        if self.is_asked {
            self.learn();
        }
    }

    /// A look at which the clock is believable makes its time known.
    fn learn(&mut self) {
        let is_news = self.newest_seen().is_none_or(|newest| newest <= self.last.wall);
        if is_news && self.judge(None).is_ok() {
            self.known = Some(self.last);
        }
    }

    fn remember(&mut self, known: Known) {
        if self.is_asked {
            return;
        }
        let Mark { wall, moment } = self.last;
        self.is_asked = true;
        // Nothing is right that comes from before the first engine.
        let known_at = known.known_at.filter(|known_at| *known_at >= FIRST_YEAR);
        if let Some(known_at) = known_at {
            self.known = Some(Mark { wall: known_at, moment });
        }
        let was_absent = known_at.is_some_and(|known_at| wall - known_at > ABSENCE_MAX);
        let leapt = known.leapt_at.filter(|leapt_at| *leapt_at <= wall);
        if was_absent {
            self.leap = Some(self.last);
        } else if let Some(ago) = leapt.and_then(|leapt_at| (wall - leapt_at).to_std().ok())
            && let Some(moment) = moment.checked_sub(ago)
        {
            self.leap = Some(Mark { wall: wall - Duration::from_std(ago).unwrap_or_default(), moment });
        }
        self.learn();
    }

    fn steps_after(&self, seen: usize) -> Vec<Step> {
        self.steps.iter().skip(seen.saturating_sub(self.forgotten)).copied().collect()
    }

    fn confirm(&mut self) {
        self.known = Some(self.last);
    }

    fn newest_seen(&self) -> Option<Timestamp> {
        self.known.map(|known| known.carried_to(self.last.moment))
    }

    fn judge(&self, last_pass: Option<Timestamp>) -> Result<(), Unbelievable> {
        if !self.is_asked {
            return Err(Unbelievable::Unasked);
        }
        Believable { now: self.last.wall, last_pass, newest_seen: self.newest_seen() }.judge()
    }

    fn may_give_up(&self, wait: Duration) -> bool {
        let steady = |leap: Mark| Duration::from_std(self.last.moment - leap.moment).unwrap_or(Duration::MAX);
        self.judge(None).is_ok() && self.leap.is_none_or(|leap| steady(leap) >= wait)
    }

    fn to_keep(&self) -> Known {
        Known { known_at: self.newest_seen(), leapt_at: self.leap.map(|leap| leap.wall) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::days(1);

    fn start() -> Timestamp {
        FIRST_YEAR + Duration::days(300)
    }

    /// A course that is led along two clocks.
    struct Led {
        course: Course,
        wall: Timestamp,
        moment: Instant,
    }

    impl Led {
        fn at(wall: Timestamp, known: Known) -> Self {
            let moment = Instant::now() + std::time::Duration::from_secs(400 * 86_400);
            let mut led = Self { course: Course::new(wall, moment), wall, moment };
            led.course.remember(known);
            led
        }

        fn after(wall: Timestamp, known_at: Timestamp) -> Self {
            Self::at(wall, Known { known_at: Some(known_at), leapt_at: None })
        }

        fn passes(&mut self, time: Duration) {
            self.moment += time.to_std().expect("time passes ahead");
            self.wall += time;
            self.course.look(self.wall, self.moment);
        }

        fn is_set(&mut self, by: Duration) {
            self.wall += by;
            self.course.look(self.wall, self.moment);
        }

        fn is_believed(&self) -> bool {
            self.course.judge(None).is_ok()
        }
    }

    #[test]
    fn steps_are_told_apart_from_time_that_passes() {
        let mut led = Led::at(start(), Known::default());
        led.passes(DAY);
        assert!(led.course.steps.is_empty());
        led.is_set(Duration::milliseconds(900));
        led.is_set(-DAY);
        led.passes(DAY);
        led.is_set(DAY);
        let by = |seen| led.course.steps_after(seen).iter().map(Step::by).collect::<Vec<_>>();
        assert_eq!(by(0), [-DAY, DAY]);
        assert_eq!(by(1), [DAY]);
        assert_eq!(by(2), []);
    }

    #[test]
    fn old_steps_are_forgotten_and_still_counted() {
        let mut led = Led::at(start(), Known::default());
        for _ in 0..STEPS_MAX {
            led.is_set(DAY);
            led.is_set(-DAY);
        }
        assert_eq!(led.course.steps_after(0).len(), STEPS_MAX);
        assert_eq!(led.course.steps_after(2 * STEPS_MAX - 1).len(), 1);
        assert_eq!(led.course.steps_after(2 * STEPS_MAX), []);
    }

    #[test]
    fn nothing_is_believed_before_the_database_was_asked() {
        let course = Course::new(start(), Instant::now());
        assert_eq!(course.judge(None), Err(Unbelievable::Unasked));
        assert!(!course.may_give_up(Duration::zero()));
    }

    #[test]
    fn a_start_far_ahead_is_not_believed_however_long_it_lasts() {
        let mut led = Led::after(start() + DAY * 400, start());
        assert!(!led.is_believed());
        led.passes(DAY * 30);
        assert!(!led.is_believed());
        assert_eq!(
            led.course.to_keep().known_at,
            Some(start() + DAY * 30),
            "a restart does not make it right"
        );
        led.is_set(-DAY * 400);
        assert!(led.is_believed());
    }

    #[test]
    fn ten_years_for_a_moment_leave_nothing_behind() {
        let mut led = Led::after(start(), start());
        led.is_set(DAY * 3650);
        led.passes(Duration::seconds(28));
        assert!(!led.is_believed());
        led.is_set(-DAY * 3650);
        assert!(led.is_believed());
        assert_eq!(led.course.to_keep().known_at, Some(start() + Duration::seconds(28)));
    }

    #[test]
    fn a_new_box_without_a_battery_is_believed_once_it_has_the_time() {
        let mut led = Led::at(Timestamp::UNIX_EPOCH, Known::default());
        assert!(!led.is_believed());
        led.passes(DAY);
        assert_eq!(led.course.to_keep().known_at, None);
        led.is_set(start() - led.wall);
        assert!(led.is_believed());
        assert_eq!(led.course.to_keep().known_at, Some(start()));
    }

    #[test]
    fn an_old_box_without_a_battery_is_believed_once_it_has_the_time() {
        let mut led = Led::after(Timestamp::UNIX_EPOCH, start());
        assert!(!led.is_believed());
        led.is_set(start() + DAY - led.wall);
        assert!(led.is_believed());
    }

    #[test]
    fn a_box_that_was_off_for_weeks_is_believed_when_somebody_says_so() {
        let mut led = Led::after(start() + DAY * 21, start());
        assert!(!led.is_believed());
        led.course.confirm();
        led.passes(DAY);
        assert!(led.is_believed());
        assert_eq!(led.course.to_keep().known_at, Some(start() + DAY * 22));
    }

    #[test]
    fn after_a_leap_nothing_is_given_up_until_its_wait_has_truly_passed() {
        let mut led = Led::after(start(), start());
        assert!(led.course.may_give_up(DAY));
        led.is_set(DAY * 2);
        assert!(led.is_believed() && !led.course.may_give_up(DAY));
        led.passes(DAY - Duration::seconds(1));
        assert!(led.course.may_give_up(DAY / 2) && !led.course.may_give_up(DAY));
        led.is_set(Duration::seconds(5));
        led.passes(Duration::seconds(1));
        assert!(led.course.may_give_up(DAY), "a small step is no leap");
    }

    #[test]
    fn a_leap_is_remembered_across_a_restart_and_an_absence_is_one() {
        let mut led = Led::after(start(), start());
        led.is_set(DAY * 2);
        led.passes(DAY / 4);
        let mut again = Led::at(led.wall, led.course.to_keep());
        assert!(!again.course.may_give_up(DAY / 2));
        again.passes(DAY / 4);
        assert!(again.course.may_give_up(DAY / 2) && !again.course.may_give_up(DAY));
        let absent = Led::after(start() + DAY * 3, start());
        assert!(absent.is_believed() && !absent.course.may_give_up(DAY / 2));
    }

    #[test]
    fn clones_share_what_they_know() {
        let watch = ClockWatch::new(Clock::manual(start()));
        let twin = watch.clone();
        assert!(twin.judge(None).is_err());
        watch.remember(Known::default());
        assert_eq!(twin.judge(None), Ok(start()));
        assert!(twin.judge(Some(start() - DAY * 8)).is_ok(), "what this process saw bears it out");
    }
}
