import assert from 'node:assert/strict'
import { UPSTREAM_FETCHES_MAX, UPSTREAM_SMALL_BYTES_MAX, UPSTREAM_SMALL_FETCHES_MAX } from '../../../src/base/index.ts'
import { FetchSlots } from '../../../src/origin/slots.ts'

const modelOf = (size: number): Parameters<FetchSlots['hasOne']>[0] => ({ files: [{ path: 'a', size, oid: '', sha256: undefined }] })

describe('origin: how many fetches run at once', () => {
  const small = modelOf(UPSTREAM_SMALL_BYTES_MAX)
  const large = modelOf(UPSTREAM_SMALL_BYTES_MAX + 1)

  for (const [what, model, max, other] of [['small', small, UPSTREAM_SMALL_FETCHES_MAX, large], ['large', large, UPSTREAM_FETCHES_MAX, small]] as const) {
    it(`of ${what} models ${max}, whatever else runs`, () => {
      const slots = new FetchSlots()
      const held = Array.from({ length: max }, () => {
        assert.ok(slots.hasOne(model))
        return slots.take(model)
      })
      assert.deepEqual([slots.hasOne(model), slots.hasOne(other)], [false, true])
      held[0]?.()
      assert.ok(slots.hasOne(model))
    })
  }
})
