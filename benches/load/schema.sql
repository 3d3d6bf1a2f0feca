-- The two tables every server under test serves, and the publication that carries them.
--
-- `locations` is what everybody watches (fan-out); `orders` is what each client watches its own
-- rows of (selective). `seq` counts the rows the writer has written, `sent_at_us` is its clock in
-- microseconds just before the transaction; the load client reads both back from every frame.

create table locations (
    id          bigint generated always as identity primary key,
    driver_id   bigint not null,
    lat         double precision not null,
    lng         double precision not null,
    heading     integer,
    speed       integer,
    status      text,
    seq         bigint not null,
    sent_at_us  bigint not null,
    note        text
);

create table orders (
    id          bigint generated always as identity primary key,
    customer_id bigint not null,
    status      text,
    total_cents integer,
    currency    text,
    seq         bigint not null,
    sent_at_us  bigint not null,
    note        text
);

-- Who may see whose orders, where row-level security is what is measured.
create table members (
    user_id     bigint not null,
    customer_id bigint not null,
    primary key (user_id, customer_id)
);

create publication walcast_bench for table locations, orders, members;

-- Clients without a token read as this role.
create role bench_reader;
create role bench_owner;
create role bench_member;
create role bench_asked;
grant usage on schema public to bench_reader, bench_owner, bench_member, bench_asked;
grant select on locations, orders, members
    to bench_reader, bench_owner, bench_member, bench_asked;
