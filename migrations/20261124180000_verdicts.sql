-- How far the verdicts over events too old to judge were read back from their streams.
--
-- The number moves with the checkpoint, in the transaction that notes the positions on the rows, so
-- that a writer that lost its stream unknowingly can't note one either.

alter table lakegauge.checkpoint
    add column noted_verdict bigint not null default 0
        check (noted_verdict >= 0 and noted_verdict < next_verdict);
comment on column lakegauge.checkpoint.next_verdict is
    'The number that the next event too old to judge gets; from 1, without gaps.';
comment on column lakegauge.checkpoint.noted_verdict is
    'Up to which number verdicts were published, read back, and noted on their rows. What is between '
    'it and next_verdict is on its way.';

-- Readers in counting order look for noted rows by their position; without it each page would visit
-- every row that was ever too old to judge.
do $$
declare
    kind text;
begin
    foreach kind in array array['lake_access', 'lake_inventory', 'warehouse_query'] loop
        execute format('create index %I on lakegauge.%I (stream, noted_epoch, noted_sequence)
            where noted_sequence is not null', kind || '_noted', kind);
    end loop;
end
$$;

-- Nothing new to grant: the archiver owns the table, readers read it whole, and the column is not
-- among those that people see.
revoke all on lakegauge.checkpoint from public;
revoke select (noted_verdict) on lakegauge.checkpoint from public;
