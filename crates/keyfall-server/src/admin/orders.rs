//! What operators may order. Names become numbers when the order's turn comes; the answer is made
//! after it was stored.

use keyfall_api::admin as api;
use keyfall_protocol::command::{CLEAR_MAX, PrefixFault};
use keyfall_protocol::enrolment;
use keyfall_protocol::ids::{Generation, TerminalNumber};
use keyfall_protocol::schedule::Cadence;
use keyfall_protocol::server::{
    ACTIVATION_LEAD, By, Done, GroupRecord, Item, Order, PackageSealing, Refusal, SealedFor,
    Server, TerminalRecord,
};

use crate::admin::packets;
use crate::admin::reports::{distribution, named_group, named_member};
use crate::driver::{Asked, Denied, Ended, Handle, View};
use crate::os_random::OsRandom;

/// Why an order was not carried out. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum OrderError {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(
        "{step} generations every {period} s are more than terminals accept: at most 64 generations \
         at a time, and 64 in 600 s"
    )]
    BadPeriod { step: u8, period: u32 },
    #[error(
        "{0:?} is no name of a key: it has 16 hexadecimal digits, as `keyfall admin keys` shows"
    )]
    NotAKeyName(String),
    #[error("{0:?} is no list of suites: write some of hpke, hpke-pq, psk, rsa-misty1, none twice")]
    NotSuites(String),
    #[error(
        "rsa-misty1 is spoken only where it stands first, by terminals with an RSA key; others take the \
         next: write it first, or leave it out"
    )]
    LegacyNotFirst,
    #[error("RSA keys are made with 2048, 3072, 4096 or 8192 bits, for the suite rsa-misty1 alone")]
    BadRsaSize,
    #[error(
        "that is no RSA key of 2048 to 8192 bits: give the file that `keyfall terminal legacy-key` wrote"
    )]
    NotAnRsaKey,
    #[error(
        "that is no receipt: give the file that the terminal left, or its text that begins with \
         KF1-RECEIPT-"
    )]
    NotAReceipt,
    #[error("{what} is to be hexadecimal")]
    NotHexadecimal { what: &'static str },
    #[error("reason and ticket have at most {WHY_MAX} characters and no control characters")]
    BadWhy,
    #[error("name what to set: change, stragglers or legacy_sharing")]
    NothingToSet,
    #[error("name what to set: packets, priority, mtu, suite or networks")]
    NoPacketSetting,
    #[error("name what to set: prefixes or endpoints")]
    NoAddressSetting,
    #[error(transparent)]
    NotAPrefix(PrefixFault),
    #[error("{0:?} is no suite of ESP; there are AES-256-GCM, AES-128-GCM and ChaCha20-Poly1305")]
    NotAnEspSuite(String),
    #[error("the clear list has at most {CLEAR_MAX} prefixes: name larger ones")]
    ClearListTooLong,
    #[error(
        "{0:?} is no endpoint; write ADDRESS:PORT, like 203.0.113.9:4500 or [2001:db8::9]:4500"
    )]
    NotAnEndpoint(String),
    #[error("the server is ending: give the order again when it runs")]
    Ended,
}

impl From<Refusal> for OrderError {
    fn from(refusal: Refusal) -> Self {
        Self::Denied(refusal.into())
    }
}

impl From<Ended> for OrderError {
    fn from(Ended: Ended) -> Self {
        Self::Ended
    }
}

/// Who orders and why, in words that a log can hold.
///
/// # Errors
/// [`OrderError::BadWhy`].
pub(crate) fn by(actor: String, why: &api::Why) -> Result<By, OrderError> {
    let bad = |text: &String| text.chars().count() > WHY_MAX || text.chars().any(char::is_control);
    if [&why.reason, &why.ticket].into_iter().flatten().any(bad) {
        return Err(OrderError::BadWhy);
    }
    Ok(By {
        actor,
        reason: why.reason.clone(),
        ticket: why.ticket.clone(),
    })
}

/// Enrols a terminal and hands out its sealed package.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn add_terminal(
    driver: &Handle,
    by: By,
    order: api::AddTerminal,
) -> Result<api::TerminalAdded, OrderError> {
    let asked = asked("terminal add", &order.name, by);
    let name = order.name.clone();
    let prepare = move |_: &Server| {
        let sealing = match (&order.request, order.token) {
            (Some(text), _) => PackageSealing::ToRequest(
                enrolment::parse_request(text).map_err(|_| Refusal::BadRequestKey)?,
            ),
            (None, Some(life)) => PackageSealing::ByToken { life },
            (None, None) => PackageSealing::UnderCode,
        };
        Ok(Order::AddTerminal {
            name: order.name,
            sealing,
            wipe_roots: order.wipe_roots,
        })
    };
    let answer = move |view: &View<'_>, done| {
        let Done::Terminal {
            number,
            package,
            sealed,
            expires,
        } = done
        else {
            unexpected()
        };
        let (code, token) = match sealed {
            SealedFor::Request => (None, None),
            SealedFor::Code(code) => (Some(code.to_string()), None),
            SealedFor::Token(token) => (None, Some(token.to_string())),
        };
        let server = view.machine.fleet().servers.first();
        api::TerminalAdded {
            schema: api::SCHEMA,
            number: number.get(),
            name,
            package: token.is_none().then(|| hex(&package)),
            code,
            server: token.as_ref().and(server).cloned(),
            token,
            expires: expires.get(),
        }
    };
    Ok(driver.order(asked, prepare, answer).await??)
}

/// Makes a group.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn create_group(
    driver: &Handle,
    by: By,
    order: api::CreateGroup,
) -> Result<api::GroupCreated, OrderError> {
    let cadence = match order.period {
        None => None,
        Some(period) => Some(
            Cadence::new(order.step, period).ok_or(OrderError::BadPeriod {
                step: order.step,
                period,
            })?,
        ),
    };
    let packets = order.packets.clone().map(packets::settings).transpose()?;
    let asked = asked("group create", &order.name, by);
    let prepare = move |machine: &Server| {
        let members = order
            .members
            .iter()
            .map(|name| Ok::<_, Refusal>(known(machine, name)?.number));
        Ok(Order::CreateGroup {
            packets: packets.clone(),
            name: order.name.clone(),
            members: members.collect::<Result<_, _>>()?,
            cadence,
        })
    };
    let answer = |view: &View<'_>, done| {
        let Done::Group { number, epoch } = done else {
            unexpected()
        };
        {
            let group = just_stored(view, number.get());
            api::GroupCreated {
                schema: api::SCHEMA,
                number: number.get(),
                name: group.name.clone(),
                epoch: epoch.get(),
                members: group.members.len() as u64,
                distribution: distribution(view, group),
                warning: period_warning(view, group),
            }
        }
    };
    Ok(driver.order(asked, prepare, answer).await??)
}

/// Adds a terminal to a group.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn add_member(
    driver: &Handle,
    by: By,
    group: String,
    order: api::AddMember,
) -> Result<api::MemberAdded, OrderError> {
    let asked = asked("group add", &group, by);
    let terminal = order.terminal.clone();
    let prepare = move |machine: &Server| {
        Ok(Order::AddMember {
            group: existing(machine, &group)?.number,
            terminal: known(machine, &order.terminal)?.number,
        })
    };
    let answer = move |view: &View<'_>, done| {
        let Done::Member { group, generation } = done else {
            unexpected()
        };
        {
            let group = just_stored(view, group.get());
            let terminal = view.machine.terminal_named(&terminal);
            api::MemberAdded {
                schema: api::SCHEMA,
                group: named_group(group),
                terminal: named_member(
                    view,
                    terminal.expect("it was found before it was added").number,
                ),
                generation: generation.get(),
                activate_at: group.schedule.activate_at.get(),
                members: group.members.len() as u64,
                distribution: distribution(view, group),
            }
        }
    };
    Ok(driver.order(asked, prepare, answer).await??)
}

/// Renews a group's key.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn renew_group(
    driver: &Handle,
    by: By,
    group: String,
) -> Result<api::GroupRenewed, OrderError> {
    let asked = asked("renew", &group, by);
    let prepare = move |machine: &Server| {
        let group = existing(machine, &group)?.number;
        Ok(Order::RenewGroup { group })
    };
    let answer = |view: &View<'_>, done| {
        let Done::Renewed {
            group,
            generation,
            at,
            ..
        } = done
        else {
            unexpected()
        };
        {
            let group = just_stored(view, group.get());
            renewal(view, group, generation, at.get(), false)
        }
    };
    Ok(driver.order(asked, prepare, answer).await??)
}

/// Says what [`renew_group`] would do now.
///
/// # Errors
/// [`Refusal::NoSuchGroup`].
pub(crate) fn would_renew_group(view: &View<'_>, name: &str) -> Result<api::GroupRenewed, Refusal> {
    let group = existing(view.machine, name)?;
    let generation = group.master.generation().next();
    let at = view.now.plus(ACTIVATION_LEAD);
    Ok(renewal(view, group, generation, at.get(), true))
}

/// Renews the wrap keys of the fleet.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn renew_devices(
    driver: &Handle,
    by: By,
) -> Result<api::DevicesRenewed, OrderError> {
    let answer = |view: &View<'_>, done| {
        let Done::FleetRenewed { generation } = done else {
            unexpected()
        };
        fleet_renewal(view, generation, false)
    };
    let asked = asked("renew devices", "all", by);
    let prepare = |_: &Server| Ok(Order::RenewDevices);
    Ok(driver.order(asked, prepare, answer).await??)
}

/// Says what [`renew_devices`] would do now.
pub(crate) fn would_renew_devices(view: &View<'_>) -> api::DevicesRenewed {
    let generation = view.machine.fleet().fleet_generation.next();
    fleet_renewal(view, generation, true)
}

/// Renews one terminal's wrap key beyond the others'.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn renew_device(
    driver: &Handle,
    by: By,
    terminal: String,
) -> Result<api::DeviceRenewed, OrderError> {
    let asked = asked("renew device", &terminal, by);
    let prepare = move |machine: &Server| {
        let terminal = known(machine, &terminal)?.number;
        Ok(Order::RenewDevice { terminal })
    };
    let answer = |view: &View<'_>, done| {
        let Done::DeviceRenewed {
            terminal,
            offset,
            generation,
        } = done
        else {
            unexpected()
        };
        device_renewal(view, terminal, offset, generation, false)
    };
    Ok(driver.order(asked, prepare, answer).await??)
}

/// Says what [`renew_device`] would do now.
///
/// # Errors
/// [`Refusal::NoSuchTerminal`].
pub(crate) fn would_renew_device(
    view: &View<'_>,
    name: &str,
) -> Result<api::DeviceRenewed, Refusal> {
    let terminal = known(view.machine, name)?;
    let generation = terminal.wrap.generation().next();
    let offset = generation.steps_from(view.machine.fleet().fleet_generation);
    Ok(device_renewal(
        view,
        terminal.number,
        offset,
        generation,
        true,
    ))
}

fn device_renewal(
    view: &View<'_>,
    terminal: TerminalNumber,
    offset: u32,
    generation: Generation,
    dry_run: bool,
) -> api::DeviceRenewed {
    let octets = view
        .machine
        .octets_of(Item::Device(terminal), &mut OsRandom);
    api::DeviceRenewed {
        schema: api::SCHEMA,
        dry_run,
        terminal: named_member(view, terminal),
        offset,
        generation: generation.get(),
        octets: octets.unwrap_or(0) as u64,
    }
}

fn renewal(
    view: &View<'_>,
    group: &GroupRecord,
    generation: Generation,
    activate_at: u32,
    dry_run: bool,
) -> api::GroupRenewed {
    let item = Item::Group(group.number);
    api::GroupRenewed {
        schema: api::SCHEMA,
        dry_run,
        group: named_group(group),
        epoch: group.master.epoch().get(),
        generation: generation.get(),
        activate_at,
        octets: view.machine.octets_of(item, &mut OsRandom).unwrap_or(0) as u64,
        members: group.members.len() as u64,
    }
}

fn fleet_renewal(view: &View<'_>, generation: Generation, dry_run: bool) -> api::DevicesRenewed {
    let machine = view.machine;
    let distributions = machine.groups().map(|group| machine.shards(group.number));
    let octets = machine.octets_of(Item::Fleet, &mut OsRandom);
    api::DevicesRenewed {
        schema: api::SCHEMA,
        dry_run,
        generation: generation.get(),
        octets: octets.unwrap_or(0) as u64,
        terminals: machine.terminals().count() as u64,
        distributions: distributions.map(u64::from).sum(),
    }
}

/// FORMATS section 3.1: the rank-1 period is never longer than the shortest master period that it
/// opens, or a recorded KEYDIST gives a later thief more than the group's period promises.
fn period_warning(view: &View<'_>, group: &GroupRecord) -> Option<String> {
    let fleet = view.machine.fleet();
    let devices = fleet.key_set.fleet_schedule.period;
    let period = group.schedule.cadence?.period();
    (period < devices).then(|| {
        format!(
            "device keys renew every {devices} s only, so a terminal that is stolen later opens up to \
             {} s of recorded traffic; --fleet-period of `keyfall server init` shortens it",
            u64::from(devices) + u64::from(fleet.keep_time)
        )
    })
}

pub(super) fn asked(action: &'static str, subject: &str, by: By) -> Asked {
    Asked {
        action,
        subject: shortened(subject),
        by,
    }
}

pub(super) fn existing<'m>(machine: &'m Server, name: &str) -> Result<&'m GroupRecord, Refusal> {
    machine
        .group_named(name)
        .ok_or_else(|| Refusal::NoSuchGroup(shortened(name)))
}

pub(super) fn known<'m>(machine: &'m Server, name: &str) -> Result<&'m TerminalRecord, Refusal> {
    machine
        .terminal_named(name)
        .ok_or_else(|| Refusal::NoSuchTerminal(shortened(name)))
}

/// What is shown again of a name that nobody has judged.
pub(super) fn shortened(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(80).collect()
}

pub(super) fn just_stored<'v>(view: &View<'v>, number: u32) -> &'v GroupRecord {
    view.machine
        .group_named(&number.to_string())
        .expect("the machine applies what was stored before it says so")
}

pub(super) fn unexpected() -> ! {
    unreachable!("the machine answers an order with what that order does")
}

pub(super) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

pub(super) fn unhex(what: &'static str, text: &str) -> Result<Vec<u8>, OrderError> {
    let octet = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).ok()?;
        let digits = pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit());
        digits.then(|| u8::from_str_radix(pair, 16).ok())?
    };
    text.as_bytes()
        .chunks(2)
        .map(octet)
        .collect::<Option<_>>()
        .ok_or(OrderError::NotHexadecimal { what })
}

const WHY_MAX: usize = 500;
