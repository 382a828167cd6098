//! Errors become answers once, here: a status, a code that `keyfall explain` knows, a sentence.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use keyfall_api::admin::{Problem, ProblemCode, SCHEMA};
use keyfall_protocol::server::Refusal;

use crate::admin::OrderError;
use crate::driver::{Denied, Ended};
use crate::store::StoreError;

/// What was not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refused {
    code: ProblemCode,
    sentence: String,
}

impl Refused {
    pub(super) fn new(code: ProblemCode, sentence: impl Into<String>) -> Self {
        Self {
            code,
            sentence: sentence.into(),
        }
    }

    const fn status(&self) -> StatusCode {
        match self.code {
            ProblemCode::BadRequest
            | ProblemCode::BadName
            | ProblemCode::NoMembers
            | ProblemCode::BadRequestKey
            | ProblemCode::BadPeriod
            | ProblemCode::BadWipeRoot
            | ProblemCode::BadReceipt
            | ProblemCode::BadKeySet
            | ProblemCode::BadTokenLife
            | ProblemCode::BadAddresses => StatusCode::BAD_REQUEST,
            ProblemCode::NotYou
            | ProblemCode::EraseSignatures
            | ProblemCode::NotTheRoot
            | ProblemCode::HourlyLimit => StatusCode::FORBIDDEN,
            ProblemCode::NoSuchPath
            | ProblemCode::NoSuchTerminal
            | ProblemCode::NoSuchGroup
            | ProblemCode::NoSuchKey => StatusCode::NOT_FOUND,
            ProblemCode::NameTaken
            | ProblemCode::AlreadyMember
            | ProblemCode::NumbersUsedUp
            | ProblemCode::RenewedTooOften
            | ProblemCode::NotMember
            | ProblemCode::Excluded
            | ProblemCode::ExcludedTooMany
            | ProblemCode::NotTheDraft
            | ProblemCode::AlreadyProved
            | ProblemCode::KeysLost
            | ProblemCode::NotHeld
            | ProblemCode::NoTokens
            | ProblemCode::Overlapping => StatusCode::CONFLICT,
            ProblemCode::NotStored | ProblemCode::StoreFault => StatusCode::INTERNAL_SERVER_ERROR,
            ProblemCode::Ending => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status(), Json(Problem::from(self))).into_response()
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        Self {
            schema: SCHEMA,
            code: refused.code,
            sentence: refused.sentence,
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::BadName(_) => ProblemCode::BadName,
            Refusal::NameTaken(_) => ProblemCode::NameTaken,
            Refusal::NoSuchTerminal(_) => ProblemCode::NoSuchTerminal,
            Refusal::NoSuchGroup(_) => ProblemCode::NoSuchGroup,
            Refusal::NoMembers => ProblemCode::NoMembers,
            Refusal::AlreadyMember(_) => ProblemCode::AlreadyMember,
            Refusal::NumbersUsedUp => ProblemCode::NumbersUsedUp,
            Refusal::BadRequestKey => ProblemCode::BadRequestKey,
            Refusal::RenewedTooOften | Refusal::DeviceRenewedTooOften(_) => {
                ProblemCode::RenewedTooOften
            }
            Refusal::NotMember(_) => ProblemCode::NotMember,
            Refusal::BadWipeRoot(_) | Refusal::TooManyWipeRoots(_) => ProblemCode::BadWipeRoot,
            Refusal::Excluded(_) => ProblemCode::Excluded,
            Refusal::ExclusionSize(_) | Refusal::ExcludedTooMany(_) => ProblemCode::ExcludedTooMany,
            Refusal::NoEraseKey
            | Refusal::NotAnEraseKey(_)
            | Refusal::OlderThanItsKey(_)
            | Refusal::TooFewSignatures { .. }
            | Refusal::BadSignature => ProblemCode::EraseSignatures,
            Refusal::NoReceipt => ProblemCode::BadRequest,
            Refusal::NotAnOrder
            | Refusal::OrderExpired
            | Refusal::NotNewer(_)
            | Refusal::NotTheDraft
            | Refusal::DraftOutdated => ProblemCode::NotTheDraft,
            Refusal::ForgedReceipt(_) | Refusal::ReceiptOfAnother(_) => ProblemCode::BadReceipt,
            Refusal::AlreadyProved { .. } => ProblemCode::AlreadyProved,
            Refusal::NoSuchKey(_) => ProblemCode::NoSuchKey,
            Refusal::BadLife(_)
            | Refusal::TooFewEraseKeys { .. }
            | Refusal::GraceTooShort(_)
            | Refusal::TooManyKeys(..)
            | Refusal::NoRsaKey => ProblemCode::BadKeySet,
            Refusal::NotTheRoot => ProblemCode::NotTheRoot,
            Refusal::KeysLost(_) => ProblemCode::KeysLost,
            Refusal::NotHeld => ProblemCode::NotHeld,
            Refusal::BadTokenLife(_) => ProblemCode::BadTokenLife,
            Refusal::NotListening | Refusal::NoSuiteForToken => ProblemCode::NoTokens,
            Refusal::NoPacketGroup
            | Refusal::TooManyNetworks(_)
            | Refusal::NoNetworks { .. }
            | Refusal::BadMtu(_)
            | Refusal::TooManyPrefixes(_)
            | Refusal::TooManyEndpoints(_)
            | Refusal::BadEndpoint(_)
            | Refusal::TooManyPacketGroups(_)
            | Refusal::RecordTooLong { .. } => ProblemCode::BadAddresses,
            Refusal::Overlapping { .. } => ProblemCode::Overlapping,
            Refusal::NotStored => ProblemCode::NotStored,
        };
        Self::new(code, refusal.to_string())
    }
}

impl From<OrderError> for Refused {
    fn from(error: OrderError) -> Self {
        let code = match error {
            OrderError::Denied(Denied::ByMachine(refusal)) => return refusal.into(),
            OrderError::Denied(Denied::HourlyLimit { .. }) => ProblemCode::HourlyLimit,
            OrderError::BadPeriod { .. } => ProblemCode::BadPeriod,
            OrderError::NotAKeyName(_) => ProblemCode::NoSuchKey,
            OrderError::NotSuites(_) | OrderError::LegacyNotFirst | OrderError::BadRsaSize => {
                ProblemCode::BadKeySet
            }
            OrderError::NotAnRsaKey => ProblemCode::BadRequest,
            OrderError::NotAReceipt => ProblemCode::BadReceipt,
            OrderError::NotHexadecimal { .. } | OrderError::BadWhy | OrderError::NothingToSet => {
                ProblemCode::BadRequest
            }
            OrderError::NoPacketSetting | OrderError::NoAddressSetting => ProblemCode::BadRequest,
            OrderError::NotAPrefix(_)
            | OrderError::NotAnEspSuite(_)
            | OrderError::ClearListTooLong
            | OrderError::NotAnEndpoint(_) => ProblemCode::BadAddresses,
            OrderError::Ended => ProblemCode::Ending,
        };
        Self::new(code, error.to_string())
    }
}

impl From<Ended> for Refused {
    fn from(ended: Ended) -> Self {
        OrderError::from(ended).into()
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        // The log has the fault in its own words; the operator gets them too: they hold no secret.
        tracing::error!(%error, "the store could not be read");
        Self::new(ProblemCode::StoreFault, error.to_string())
    }
}
