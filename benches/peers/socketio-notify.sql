-- The trigger that socketio-notify lives on; `drop function … cascade` takes it away again.
create or replace function bench_notify() returns trigger language plpgsql as $$
begin
    perform pg_notify('changes', json_build_object(
        'type', 'row', 'op', lower(tg_op), 'table', tg_table_name, 'new', row_to_json(new))::text);
    return null;
end $$;

create or replace trigger bench_notify after insert or update on locations
    for each row execute function bench_notify();
create or replace trigger bench_notify after insert or update on orders
    for each row execute function bench_notify();
