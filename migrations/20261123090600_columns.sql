-- What each column of each view means. A view is read by people who have nothing else before them.

comment on column lakegauge_api.checkpoint.stream is
    'Name of the stream.';
comment on column lakegauge_api.checkpoint.epoch is
    'Epoch of the stream up to which it is archived.';
comment on column lakegauge_api.checkpoint.sequence is
    'Sequence of the last message that is archived.';
comment on column lakegauge_api.checkpoint.broker_at is
    'When the broker took that message.';
comment on column lakegauge_api.checkpoint.updated_at is
    'When the archiver committed it.';

comment on column lakegauge_api.correction.occurred_at is
    'Time of the event that is withdrawn.';
comment on column lakegauge_api.correction.id is
    'Id of the correction; it follows from what is corrected.';
comment on column lakegauge_api.correction.correction is
    'withdrawn: the event counts no longer; restored: the change decides about its object again.';
comment on column lakegauge_api.correction.of_at is
    'Time of the event that is corrected.';
comment on column lakegauge_api.correction.of_id is
    'Id of the event that is corrected.';
comment on column lakegauge_api.correction.bucket is
    'Bucket of the request; null for a query.';
comment on column lakegauge_api.correction.key is
    'Key of the object; null for a query.';
comment on column lakegauge_api.correction.warehouse is
    'Warehouse of the query; null for a request.';
comment on column lakegauge_api.correction.stream is
    'Name of the stream that it came by: lake or warehouse, and the partition.';
comment on column lakegauge_api.correction.epoch is
    'Epoch of the stream; a stream that was made again begins another.';
comment on column lakegauge_api.correction.sequence is
    'Sequence of its message in the stream.';
comment on column lakegauge_api.correction.index is
    'Place among the events of its message, from 0.';
comment on column lakegauge_api.correction.counted is
    'Whether metrics show it: the archive''s verdict on it was read back.';

comment on column lakegauge_api.dead_letter.number is
    'Its number, by which `lakegauge dead-letters` names it.';
comment on column lakegauge_api.dead_letter.received_at is
    'When it was kept, by the clock of the database.';
comment on column lakegauge_api.dead_letter.reason is
    'Why it is no event.';
comment on column lakegauge_api.dead_letter.field is
    'Field at fault; null where it is the whole.';
comment on column lakegauge_api.dead_letter.detail is
    'What exactly is wrong.';
comment on column lakegauge_api.dead_letter.sqlstate is
    'What PostgreSQL answered where it refused the row; else null.';
comment on column lakegauge_api.dead_letter.counted is
    'Whether metrics count it all the same: only the database refused it.';
comment on column lakegauge_api.dead_letter.closed_at is
    'When it was closed; null: it is open.';
comment on column lakegauge_api.dead_letter.occurred_at is
    'Time of the event; null where it could not be read.';
comment on column lakegauge_api.dead_letter.id is
    'Identity of the event; null where it could not be read.';
comment on column lakegauge_api.dead_letter.bytes is
    'The message as it came, or the event in it.';
comment on column lakegauge_api.dead_letter.header_bytes is
    'How many of the bytes are a header block that could not be read.';
comment on column lakegauge_api.dead_letter.stream is
    'Name of the stream that it came by: lake or warehouse, and the partition.';
comment on column lakegauge_api.dead_letter.epoch is
    'Epoch of the stream; a stream that was made again begins another.';
comment on column lakegauge_api.dead_letter.sequence is
    'Sequence of its message in the stream.';
comment on column lakegauge_api.dead_letter.index is
    'Place among the events of its message, from 0.';
comment on column lakegauge_api.dead_letter.broker_at is
    'When the broker took its message.';
comment on column lakegauge_api.dead_letter.closed_as is
    'row: inserted; published: sent again; dropped: let go; null: open.';
comment on column lakegauge_api.dead_letter.attempts is
    'How often it was retried.';
comment on column lakegauge_api.dead_letter.tried_at is
    'When it was retried last.';
comment on column lakegauge_api.dead_letter.note is
    'Why it was closed, in somebody''s words.';
comment on column lakegauge_api.dead_letter.source is
    'Who sent it: the last part of the subject; null where that is not known.';

comment on column lakegauge_api.declared_loss.stream is
    'Name of the stream that it came by: lake or warehouse, and the partition.';
comment on column lakegauge_api.declared_loss.epoch is
    'Epoch of the stream; a stream that was made again begins another.';
comment on column lakegauge_api.declared_loss.first is
    'First message that is lost.';
comment on column lakegauge_api.declared_loss.last is
    'Last message that is lost.';
comment on column lakegauge_api.declared_loss.found_at is
    'When that was found.';

comment on column lakegauge_api.dropped.stream is
    'Name of the stream that it came by: lake or warehouse, and the partition.';
comment on column lakegauge_api.dropped.kind is
    'Table: lake_access, lake_inventory or warehouse_query.';
comment on column lakegauge_api.dropped.dropped_from is
    'Beginning of the time whose rows are gone.';
comment on column lakegauge_api.dropped.dropped_to is
    'End of that time, not included.';
comment on column lakegauge_api.dropped.rows is
    'How many rows of the stream are gone.';
comment on column lakegauge_api.dropped.dropped_at is
    'When they were dropped.';

comment on column lakegauge_api.lake_access.occurred_at is
    'When the request was made.';
comment on column lakegauge_api.lake_access.id is
    'Its identity, given at the origin; unique together with its time.';
comment on column lakegauge_api.lake_access.bucket is
    'Name of the bucket.';
comment on column lakegauge_api.lake_access.key is
    'Key of the object in its bucket.';
comment on column lakegauge_api.lake_access.operation is
    'read, head, list, write, copy, delete or other.';
comment on column lakegauge_api.lake_access.outcome is
    'ok, not_found, denied, throttled, timeout, cancelled, client_error or server_error.';
comment on column lakegauge_api.lake_access.bytes is
    'Bytes transferred.';
comment on column lakegauge_api.lake_access.object_bytes is
    'Size of the object afterwards; null where the source does not say it.';
comment on column lakegauge_api.lake_access.duration_us is
    'How long it took, in microseconds.';
comment on column lakegauge_api.lake_access.principal is
    'Who asked for it: a user or a service.';
comment on column lakegauge_api.lake_access.sequencer is
    'The store''s own order of changes of one key; null where it gives none.';
comment on column lakegauge_api.lake_access.stream is
    'Name of the stream that it came by: lake or warehouse, and the partition.';
comment on column lakegauge_api.lake_access.epoch is
    'Epoch of the stream; a stream that was made again begins another.';
comment on column lakegauge_api.lake_access.sequence is
    'Sequence of its message in the stream.';
comment on column lakegauge_api.lake_access.index is
    'Place among the events of its message, from 0.';
comment on column lakegauge_api.lake_access.late is
    'Whether it came too late for the sets of known events, so that its key decided.';
comment on column lakegauge_api.lake_access.source is
    'Who sent it: the last part of the subject; null where that is not known.';
comment on column lakegauge_api.lake_access.withdrawn is
    'Whether it was reported wrongly and counts no longer.';

comment on column lakegauge_api.lake_day.day is
    'Day of event time, of UTC.';
comment on column lakegauge_api.lake_day.bucket is
    'Name of the bucket.';
comment on column lakegauge_api.lake_day.principal is
    'Who asked for it: a user or a service.';
comment on column lakegauge_api.lake_day.operation is
    'read, head, list, write, copy, delete or other.';
comment on column lakegauge_api.lake_day.outcome is
    'ok, not_found, denied, throttled, timeout, cancelled, client_error or server_error.';
comment on column lakegauge_api.lake_day.events is
    'How many requests.';
comment on column lakegauge_api.lake_day.bytes is
    'Bytes transferred.';
comment on column lakegauge_api.lake_day.duration_us is
    'Sum of the durations that are known, in microseconds. Not of every request: events is no count '
    'of durations.';
comment on column lakegauge_api.lake_day.stream is
    'Name of the stream that it came by: lake or warehouse, and the partition.';

comment on column lakegauge_api.lake_growth.day is
    'Day of event time, of UTC.';
comment on column lakegauge_api.lake_growth.bucket is
    'Name of the bucket.';
comment on column lakegauge_api.lake_growth.bytes is
    'By how many bytes it grew; negative: it shrank.';
comment on column lakegauge_api.lake_growth.objects is
    'By how many objects it grew; negative: there are fewer.';
comment on column lakegauge_api.lake_growth.stream is
    'Name of the stream that it came by: lake or warehouse, and the partition.';

comment on column lakegauge_api.lake_inventory.as_of is
    'Of when the count is.';
comment on column lakegauge_api.lake_inventory.id is
    'Its identity, given at the origin; unique together with its time.';
comment on column lakegauge_api.lake_inventory.bucket is
    'Name of the bucket.';
comment on column lakegauge_api.lake_inventory.objects is
    'How many objects were stored.';
comment on column lakegauge_api.lake_inventory.bytes is
    'How many bytes were stored.';
comment on column lakegauge_api.lake_inventory.stream is
    'Name of the stream that it came by: lake or warehouse, and the partition.';
comment on column lakegauge_api.lake_inventory.epoch is
    'Epoch of the stream; a stream that was made again begins another.';
comment on column lakegauge_api.lake_inventory.sequence is
    'Sequence of its message in the stream.';
comment on column lakegauge_api.lake_inventory.index is
    'Place among the events of its message, from 0.';
comment on column lakegauge_api.lake_inventory.late is
    'Whether it came too late for the sets of known events, so that its key decided.';
comment on column lakegauge_api.lake_inventory.source is
    'Who sent it: the last part of the subject; null where that is not known.';

comment on column lakegauge_api.lake_object.bucket is
    'Name of the bucket.';
comment on column lakegauge_api.lake_object.key is
    'Key of the object in its bucket.';
comment on column lakegauge_api.lake_object.is_stored is
    'Whether it is there now; a key that was only read is not known to be.';
comment on column lakegauge_api.lake_object.bytes is
    'Its size; null where it is not stored.';
comment on column lakegauge_api.lake_object.change is
    'The change that decides: write, copy or delete; null: none was archived.';
comment on column lakegauge_api.lake_object.changed_at is
    'When that change was made.';
comment on column lakegauge_api.lake_object.changed_by is
    'Who made it.';
comment on column lakegauge_api.lake_object.read_at is
    'The last successful read, up to an hour early; null: none was archived.';
comment on column lakegauge_api.lake_object.stream is
    'Name of the stream that it came by: lake or warehouse, and the partition.';

comment on column lakegauge_api.lake_window.window_start is
    'Beginning of the window, of event time.';
comment on column lakegauge_api.lake_window.length_s is
    'Length of the window in seconds; choose one.';
comment on column lakegauge_api.lake_window.bucket is
    'Name of the bucket.';
comment on column lakegauge_api.lake_window.operation is
    'read, head, list, write, copy, delete or other.';
comment on column lakegauge_api.lake_window.outcome is
    'ok, not_found, denied, throttled, timeout, cancelled, client_error or server_error.';
comment on column lakegauge_api.lake_window.events is
    'How many requests.';
comment on column lakegauge_api.lake_window.bytes is
    'Bytes transferred.';
comment on column lakegauge_api.lake_window.duration_us is
    'Sum of the durations that are known, in microseconds. Not of every request: events is no count '
    'of durations.';
comment on column lakegauge_api.lake_window.duration_us_max is
    'The longest duration, in microseconds, within 1 %; null where none is known.';
comment on column lakegauge_api.lake_window.sketch is
    'Distribution of the durations that are known: lakegauge_api.sketch_sum adds any up, '
    'lakegauge_api.sketch_percentile reads them.';
comment on column lakegauge_api.lake_window.stream is
    'Name of the stream that it came by: lake or warehouse, and the partition.';

comment on column lakegauge_api.ledger.stream is
    'Name of the stream that it came by: lake or warehouse, and the partition.';
comment on column lakegauge_api.ledger.epoch is
    'Epoch of the stream; a stream that was made again begins another.';
comment on column lakegauge_api.ledger.first is
    'First message of the transaction.';
comment on column lakegauge_api.ledger.last is
    'Last message of the transaction.';
comment on column lakegauge_api.ledger.events is
    'Events, dead letters and samples in these messages.';
comment on column lakegauge_api.ledger.inserted is
    'How many became rows.';
comment on column lakegauge_api.ledger.duplicates is
    'How many were known already.';
comment on column lakegauge_api.ledger.dead is
    'How many became dead letters.';
comment on column lakegauge_api.ledger.committed_at is
    'When the transaction began, by the clock of the database.';

comment on column lakegauge_api.pattern_day.day is
    'Day of event time, of UTC.';
comment on column lakegauge_api.pattern_day.fingerprint is
    'The same for queries that differ only in their values.';
comment on column lakegauge_api.pattern_day.warehouse is
    'Name of the warehouse.';
comment on column lakegauge_api.pattern_day.statement is
    'Kind of statement: select, insert, update, delete, merge, copy, unload, create_table_as, '
    'ddl, maintenance or other.';
comment on column lakegauge_api.pattern_day.events is
    'How many queries.';
comment on column lakegauge_api.pattern_day.failures is
    'How many of them did not end with ok.';
comment on column lakegauge_api.pattern_day.bytes_scanned is
    'Bytes scanned.';
comment on column lakegauge_api.pattern_day.queued_us is
    'Sum of the time in the queue, in microseconds.';
comment on column lakegauge_api.pattern_day.executed_us is
    'Sum of the time of execution, in microseconds.';
comment on column lakegauge_api.pattern_day.response_us_max is
    'The longest response time, in microseconds.';
comment on column lakegauge_api.pattern_day.stream is
    'Name of the stream that it came by: lake or warehouse, and the partition.';

comment on column lakegauge_api.rolled_up.stream is
    'Name of the stream that it came by: lake or warehouse, and the partition.';
comment on column lakegauge_api.rolled_up.part is
    'days: the sums by day; keys: what is known of each key.';
comment on column lakegauge_api.rolled_up.epoch is
    'Epoch of the stream up to which rows were added.';
comment on column lakegauge_api.rolled_up.sequence is
    'Sequence of the last message whose rows were added.';
comment on column lakegauge_api.rolled_up.rolled_at is
    'When the last of them were added.';
comment on column lakegauge_api.rolled_up.forgotten_to is
    'Of part keys: keys that were deleted before this, or read last and never changed, are forgotten '
    'with the rows of their time; null: none.';

comment on column lakegauge_api.sample.at is
    'Time of the broker up to which the metrics are.';
comment on column lakegauge_api.sample.stream is
    'Name of the stream that it came by: lake or warehouse, and the partition.';
comment on column lakegauge_api.sample.used_bytes is
    'Bytes stored in the stream''s buckets; null for the warehouse.';
comment on column lakegauge_api.sample.accesses is
    'Requests since the first event; null for the warehouse.';
comment on column lakegauge_api.sample.buckets is
    'Bytes stored by bucket; null for the warehouse.';
comment on column lakegauge_api.sample.queries_in_window is
    'Queries of the 60 s before; null for the lake.';
comment on column lakegauge_api.sample.response_us_in_window is
    'Sum of their response times, in microseconds; null for the lake.';
comment on column lakegauge_api.sample.records is
    'Rows processed since the first event; null for the lake.';
comment on column lakegauge_api.sample.epoch is
    'Epoch of the stream; a stream that was made again begins another.';
comment on column lakegauge_api.sample.sequence is
    'Sequence of the message after which they were this.';

comment on column lakegauge_api.stored_object.bucket is
    'Name of the bucket.';
comment on column lakegauge_api.stored_object.key is
    'Key of the object in its bucket.';
comment on column lakegauge_api.stored_object.bytes is
    'Its size.';
comment on column lakegauge_api.stored_object.changed_at is
    'When it was written or copied last.';
comment on column lakegauge_api.stored_object.changed_by is
    'Who did that.';
comment on column lakegauge_api.stored_object.read_at is
    'The last successful read, up to an hour early; null: none was archived.';
comment on column lakegauge_api.stored_object.stream is
    'Name of the stream that it came by: lake or warehouse, and the partition.';

comment on column lakegauge_api.warehouse_day.day is
    'Day of event time, of UTC.';
comment on column lakegauge_api.warehouse_day.warehouse is
    'Name of the warehouse.';
comment on column lakegauge_api.warehouse_day.principal is
    'Who asked for it: a user or a service.';
comment on column lakegauge_api.warehouse_day.outcome is
    'ok, not_found, denied, throttled, timeout, cancelled, client_error or server_error.';
comment on column lakegauge_api.warehouse_day.events is
    'How many queries.';
comment on column lakegauge_api.warehouse_day.bytes_scanned is
    'Bytes scanned.';
comment on column lakegauge_api.warehouse_day.queued_us is
    'Sum of the time in the queue, in microseconds.';
comment on column lakegauge_api.warehouse_day.executed_us is
    'Sum of the time of execution, in microseconds.';
comment on column lakegauge_api.warehouse_day.rows_processed is
    'Rows processed.';
comment on column lakegauge_api.warehouse_day.stream is
    'Name of the stream that it came by: lake or warehouse, and the partition.';

comment on column lakegauge_api.warehouse_query.occurred_at is
    'When the query ended.';
comment on column lakegauge_api.warehouse_query.id is
    'Its identity, given at the origin; unique together with its time.';
comment on column lakegauge_api.warehouse_query.warehouse is
    'Name of the warehouse.';
comment on column lakegauge_api.warehouse_query.database is
    'Name of the database.';
comment on column lakegauge_api.warehouse_query.statement is
    'Kind of statement: select, insert, update, delete, merge, copy, unload, create_table_as, '
    'ddl, maintenance or other.';
comment on column lakegauge_api.warehouse_query.outcome is
    'ok, not_found, denied, throttled, timeout, cancelled, client_error or server_error.';
comment on column lakegauge_api.warehouse_query.queued_us is
    'Time in the queue, in microseconds.';
comment on column lakegauge_api.warehouse_query.executed_us is
    'Time of execution, in microseconds.';
comment on column lakegauge_api.warehouse_query.rows_processed is
    'Rows read or written to answer it.';
comment on column lakegauge_api.warehouse_query.rows_returned is
    'Rows of the answer.';
comment on column lakegauge_api.warehouse_query.bytes_scanned is
    'Bytes scanned.';
comment on column lakegauge_api.warehouse_query.cache_hit is
    'Whether it was answered from a cache.';
comment on column lakegauge_api.warehouse_query.principal is
    'Who asked for it: a user or a service.';
comment on column lakegauge_api.warehouse_query.fingerprint is
    'The same for queries that differ only in their values.';
comment on column lakegauge_api.warehouse_query.stream is
    'Name of the stream that it came by: lake or warehouse, and the partition.';
comment on column lakegauge_api.warehouse_query.epoch is
    'Epoch of the stream; a stream that was made again begins another.';
comment on column lakegauge_api.warehouse_query.sequence is
    'Sequence of its message in the stream.';
comment on column lakegauge_api.warehouse_query.index is
    'Place among the events of its message, from 0.';
comment on column lakegauge_api.warehouse_query.late is
    'Whether it came too late for the sets of known events, so that its key decided.';
comment on column lakegauge_api.warehouse_query.source is
    'Who sent it: the last part of the subject; null where that is not known.';
comment on column lakegauge_api.warehouse_query.withdrawn is
    'Whether it was reported wrongly and counts no longer.';

comment on column lakegauge_api.warehouse_window.window_start is
    'Beginning of the window, of event time.';
comment on column lakegauge_api.warehouse_window.length_s is
    'Length of the window in seconds; choose one.';
comment on column lakegauge_api.warehouse_window.warehouse is
    'Name of the warehouse.';
comment on column lakegauge_api.warehouse_window.statement is
    'Kind of statement: select, insert, update, delete, merge, copy, unload, create_table_as, '
    'ddl, maintenance or other.';
comment on column lakegauge_api.warehouse_window.outcome is
    'ok, not_found, denied, throttled, timeout, cancelled, client_error or server_error.';
comment on column lakegauge_api.warehouse_window.events is
    'How many queries.';
comment on column lakegauge_api.warehouse_window.bytes_scanned is
    'Bytes scanned.';
comment on column lakegauge_api.warehouse_window.rows_processed is
    'Rows processed.';
comment on column lakegauge_api.warehouse_window.response_us is
    'Sum of the response times, in microseconds.';
comment on column lakegauge_api.warehouse_window.cache_hits is
    'How many were answered from a cache.';
comment on column lakegauge_api.warehouse_window.response_us_max is
    'The longest response time, in microseconds, within 1 %.';
comment on column lakegauge_api.warehouse_window.sketch is
    'Distribution of the durations: lakegauge_api.sketch_sum adds any up, '
    'lakegauge_api.sketch_percentile reads them.';
comment on column lakegauge_api.warehouse_window.stream is
    'Name of the stream that it came by: lake or warehouse, and the partition.';

comment on column lakegauge_api.window_length.stream is
    'Name of the stream.';
comment on column lakegauge_api.window_length.length_s is
    'Length of windows in seconds.';
comment on column lakegauge_api.window_length.kept_from is
    'Windows from this time on are kept; null: all of them.';

comment on column lakegauge_api.withdrawal.number is
    'Its number.';
comment on column lakegauge_api.withdrawal.source is
    'The source whose events are withdrawn.';
comment on column lakegauge_api.withdrawal.occurred_from is
    'Only events from this time on; null: from the first.';
comment on column lakegauge_api.withdrawal.occurred_to is
    'Only events before this time; null: to the last.';
comment on column lakegauge_api.withdrawal.reason is
    'Why, in somebody''s words.';
comment on column lakegauge_api.withdrawal.requested_at is
    'When it was asked for, by the clock of the database.';
comment on column lakegauge_api.withdrawal.finished_at is
    'When the last of its events counted no longer; null: it was not seen to its end.';
comment on column lakegauge_api.withdrawal.events is
    'How many events it withdrew; null: it was not seen to its end.';
