-- Give a standby's databases the number of the node that they follow. The previous holders become standbys.
-- Needs registry.lua.
-- KEYS  {stream}:nodes and {stream}:leases, as in take_number.lua
-- ARGV  the number. Then for each database its name, its service's URL, and leases: '' for any. The holders of
--       the number must still have these. Each ends with a comma; they are in the order of the holders' names.
-- Answers `promoted`. Or `alive`, and the database that may have renewed its lease. Then nothing is changed.
--
-- Two databases of a service may hold one number; see take_number.lua.
local number = ARGV[1]

local function others_with_number(database)
    return holders(service_of(database), number, {[database] = true})
end

for i = 2, #ARGV, 3 do
    local others, leases = others_with_number(ARGV[i]), ''
    table.sort(others)
    for _, other in ipairs(others) do
        leases = leases .. (call('HGET', KEYS[2], other) or '') .. ','
    end
    if ARGV[i + 2] ~= '' and leases ~= '' and leases ~= ARGV[i + 2] then
        return answer('alive', table.concat(others, ' or '))
    end
end
for i = 2, #ARGV, 3 do
    local database, url = ARGV[i], ARGV[i + 1]
    local _, _, changes = read_of(database)
    changes = math.max(changes, 0)
    for _, other in ipairs(others_with_number(database)) do
        local _, their_url, theirs = read_of(other)
        changes = math.max(changes, theirs)
        write(other, number, standby(their_url), theirs + PROMOTION)
    end
    write(database, number, url, changes + PROMOTION)
end
return answer('promoted', '')
