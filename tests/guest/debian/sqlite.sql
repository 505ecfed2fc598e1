create table item (id integer primary key, name text, price real, tag int);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)
insert into item select i, printf('item-%05d', (i * 7919) % 20011), (i * 37 % 1000) / 7.0, i % 13 from n;
create index by_name on item (name); create index by_tag on item (tag, price);
select count(*), round(sum(price), 4), min(name), max(name) from item;
select tag, count(*), round(avg(price), 6) from item group by tag order by 3 desc;
select a.name, b.name from item a join item b on a.id = b.id + 1 where a.tag = 3 and b.price > 140 order by a.name limit 5;
update item set price = price * 1.1 where tag in (1, 2, 3); delete from item where id % 3 = 0;
select count(*), round(total(price), 4) from item; pragma integrity_check;
select name, rank() over (partition by tag order by price desc, id) r from item where tag < 2 order by r, name limit 6;
select json_extract('{"a": [1, {"b": 2.5}]}', '$.a[1].b'), json_group_array(tag) from (select distinct tag from item order by tag);
create virtual table doc using fts5(body); insert into doc select name || ' tag' || tag from item;
select count(*) from doc where doc match 'tag5'; select hex(md.x) from (select zeroblob(4) x) md;
select 1e300 * 1e10, 0.1 + 0.2, 1 / 3.0, 9223372036854775807 + 1, -5 % 3, round(2.5), cast('12abc' as int), 3.0e-10;
select strftime('%Y-%m-%d %H:%M:%f', 2460000.5), date('2024-01-31', '+1 month'), julianday('2000-01-01');
begin; delete from item; rollback; select count(*) from item; vacuum; select count(*) from item where name glob 'item-0*';
select upper(hex(randomblob(0))) = '', length(randomblob(100)), typeof(1.0), instr('hello', 'll'), substr('héllo', 2, 3), quote(x'01ff');
