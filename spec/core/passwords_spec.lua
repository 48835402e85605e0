-- SPDX-License-Identifier: Apache-2.0
local bare_loop = require "spec.support.loop"
local core = require "spec.support.core"
local ffi = require "ffi"

local C = core.load("passwords.h")

local HELLO = "$y$j75$k2XAnEHBqQ1Ct2aMXFKNa/HAmA1BpMnBsYHMWB4NZN4$Hj8ha.49UT5sHWbc3072ggKXKgBXaEIS/ZAYK2tUqr1"

local function slice(text)
  return ffi.new("struct slice", text, #text)
end

describe("passwords", function()
  local loop, passwords, answers, callback

  before_each(function()
    loop, answers = bare_loop.new("passwords.h"), {}
    callback = ffi.cast("void (*)(void *, double, bool)", function(_, number, fits) answers[number] = fits end)
    passwords = C.passwords_new(loop.raw, callback, nil)
  end)

  after_each(function()
    if passwords then C.passwords_free(passwords) end
    callback:free()
    loop:close()
  end)

  local function check(phrase, hash, number)
    return C.passwords_check(passwords, slice(phrase), slice(hash), number or 1)
  end

  local function answer(phrase, hash)
    answers[1] = nil
    assert.equal(0, check(phrase, hash))
    assert.is_true(C.passwords_are_checked(passwords))
    loop:turn_until(function() return answers[1] ~= nil end)
    assert.is_false(C.passwords_are_checked(passwords))
    return answers[1]
  end

  it("fit the hash that was made of them, and no other", function()
    assert.is_true(answer("hello", HELLO))
    assert.is_false(answer("hell", HELLO))
    assert.is_false(answer("hello ", HELLO))
    assert.is_false(answer("hello", HELLO:sub(1, -2) .. "2"))
  end)

  it("fit nothing that is no hash, and least of all itself", function()
    for _, text in ipairs { "hello", "*0", "*1", "$y$", "$1$", "$nothing$x" } do
      assert.message(text).is_false(answer("hello", text))
      assert.message(text).is_false(answer(text, text))
    end
  end)

  it("are refused with a zero byte, and when they are long", function()
    assert.equal(C.PASSWORDS_INVALID, check("hello\0", HELLO))
    assert.equal(C.PASSWORDS_INVALID, check("", HELLO))
    assert.equal(C.PASSWORDS_INVALID, check("hello", HELLO .. "\0"))
    assert.equal(C.PASSWORDS_INVALID, check(("x"):rep(C.PASSWORDS_PHRASE_MAX + 1), HELLO))
    assert.equal(C.PASSWORDS_INVALID, check("hello", ("x"):rep(C.PASSWORDS_HASH_MAX + 1)))
    assert.is_false(answer(("x"):rep(C.PASSWORDS_PHRASE_MAX), HELLO))
  end)

  it("wait in a line that has an end, and each is answered", function()
    for i = 1, C.PASSWORDS_WAITING_MAX do assert.equal(0, check(i % 2 == 0 and "hello" or "other", HELLO, i)) end
    assert.equal(C.PASSWORDS_FULL, check("hello", HELLO))
    loop:turn_until(function() return #answers == C.PASSWORDS_WAITING_MAX end)
    for i, fits in ipairs(answers) do assert.equal(i % 2 == 0, fits) end
    assert.is_true(answer("hello", HELLO))
  end)

  it("are nobody's any more once they are freed", function()
    for i = 1, 5 do check("hello", HELLO, i) end
    C.passwords_free(passwords)
    passwords = nil
    assert.same({}, answers)
  end)
end)
