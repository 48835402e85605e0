-- SPDX-License-Identifier: Apache-2.0
local ffi = require "ffi"
local loop = require "spec.support.loop"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

describe("watch", function()
  local main, C, watch, dir, changes, on_change

  before_each(function()
    main = loop.new("watch.h")
    C = main.C
    dir = posix.temporary_directory()
    changes = {}
    on_change = ffi.cast("void (*)(void *, const char *)", function(_, path)
      changes[#changes + 1] = { path = ffi.string(path), at = posix.now() }
    end)
    watch = C.watch_new(main.raw, on_change, nil, nil)
    assert.is_true(watch ~= nil)
  end)

  after_each(function()
    C.watch_free(watch)
    main:close()
    on_change:free()
    process.remove(dir)
  end)

  local function set(...)
    local paths = { ... }
    local raw = ffi.new("const char *[?]", #paths, paths)
    return C.watch_set(watch, raw, #paths, nil)
  end

  local function write(name, text)
    process.write_file(dir .. "/" .. name, text or "x")
  end

  local function shell(command)
    assert.equal(0, os.execute(("cd '%s' && %s"):format(dir, command)))
  end

  -- Does something and waits until it is told; gives the path.
  local function told_of(action)
    local before = #changes
    action()
    main:turn_until(function() return #changes > before end, 2)
    return changes[#changes].path:sub(#dir + 2)
  end

  local function silent_after(action)
    local before = #changes
    action()
    main:turn_for(0.15)
    return #changes == before
  end

  it("tells of a file that is written in place", function()
    write("sluice.yml")
    set(dir .. "/sluice.yml")
    assert.equal("sluice.yml", told_of(function() write("sluice.yml", "y") end))
  end)

  it("tells of a file that an editor saves by renaming another over it, every time", function()
    write("sluice.yml")
    set(dir .. "/sluice.yml")
    for _ = 1, 3 do
      assert.equal("sluice.yml", told_of(function()
        write("sluice.yml.new", "y")
        shell("mv sluice.yml.new sluice.yml")
      end))
    end
  end)

  it("is silent about the neighbours of a file", function()
    write("sluice.yml")
    set(dir .. "/sluice.yml")
    assert.is_true(silent_after(function() write("other.yml") end))
  end)

  it("is silent about swap files and backups in a folder", function()
    shell("mkdir -p plugins/hello")
    set(dir .. "/plugins")
    assert.is_true(silent_after(function()
      write("plugins/hello/.handler.lua.swp")
      write("plugins/hello/handler.lua~")
      write("plugins/hello/4913")
    end))
  end)

  it("sees files at any depth of a folder", function()
    shell("mkdir -p plugins/hello/words/deep")
    set(dir .. "/plugins")
    assert.equal("plugins/hello/words/deep/a.lua", told_of(function() write("plugins/hello/words/deep/a.lua") end))
  end)

  it("follows folders that are made later, and what is saved in them at once", function()
    shell("mkdir plugins")
    set(dir .. "/plugins")
    told_of(function() shell("mkdir -p plugins/hello/words && echo x > plugins/hello/words/a.lua") end)
    assert.equal("plugins/hello/words/a.lua", told_of(function() write("plugins/hello/words/a.lua", "y") end))
  end)

  it("tells of a file that is removed", function()
    shell("mkdir plugins && touch plugins/a.lua")
    set(dir .. "/plugins")
    assert.equal("plugins/a.lua", told_of(function() shell("rm plugins/a.lua") end))
  end)

  it("waits for a folder that is not there yet", function()
    set(dir .. "/plugins")
    assert.equal("plugins", told_of(function() shell("mkdir plugins") end))
    assert.equal("plugins/a.lua", told_of(function() write("plugins/a.lua") end))
  end)

  it("follows a folder that is replaced by another", function()
    shell("mkdir plugins")
    set(dir .. "/plugins")
    told_of(function() shell("mkdir fresh && mv plugins old && mv fresh plugins") end)
    assert.equal("plugins/a.lua", told_of(function() write("plugins/a.lua") end))
    assert.is_true(silent_after(function() write("old/a.lua") end))
  end)

  it("sees a ConfigMap being turned to its next version", function()
    shell("mkdir v1 v2 && touch v1/sluice.yml v2/sluice.yml")
    shell("ln -s v1 ..data && ln -s ..data/sluice.yml sluice.yml")
    set(dir .. "/sluice.yml")
    told_of(function() shell("ln -s v2 ..data_tmp && mv -T ..data_tmp ..data") end)
    assert.is_true(#changes >= 1)
  end)

  it("tells once of a burst, soon after its end", function()
    write("sluice.yml")
    set(dir .. "/sluice.yml")
    local began = posix.now()
    told_of(function()
      for i = 1, 5 do write("sluice.yml", tostring(i)) end
    end)
    assert.is_true(changes[1].at - began >= C.WATCH_REST_MS / 1000 - 0.005)
    main:turn_for(0.15)
    assert.equal(1, #changes)
  end)

  it("tells even while writing goes on", function()
    write("sluice.yml")
    set(dir .. "/sluice.yml")
    main:turn_until(function()
      write("sluice.yml", "again")
      return #changes > 0
    end, 2)
  end)

  it("forgets the paths of before when it gets others", function()
    write("a.yml")
    write("b.yml")
    set(dir .. "/a.yml")
    set(dir .. "/b.yml")
    assert.is_true(silent_after(function() write("a.yml", "y") end))
    assert.equal("b.yml", told_of(function() write("b.yml", "y") end))
  end)

  it("says that a path could not be watched, and watches the others", function()
    write("a.yml")
    assert.is_true(set(dir .. "/no/such/folder/x.yml", dir .. "/a.yml") < 0)
    assert.equal("a.yml", told_of(function() write("a.yml", "y") end))
  end)
end)
