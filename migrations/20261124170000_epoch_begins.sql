-- Where the epoch after a closed one begins: a purged stream goes on counting, so that its new epoch
-- does not begin at 1. The ledger alone could not tell that from ranges that are gone.

alter table lakegauge.epoch
    add column next_after bigint not null default 0 check (next_after >= 0);
comment on column lakegauge.epoch.next_after is
    'The sequence before the first message of the next epoch.';
