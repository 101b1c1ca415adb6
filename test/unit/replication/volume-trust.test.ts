import assert from 'node:assert/strict'
import { VolumeTrust } from '../../../src/replication/volume-trust.ts'

describe('trust in a volume', () => {
  it('ends with several bad places in one pass, and is not won back in the same life', () => {
    const trust = new VolumeTrust(undefined, 8)
    assert.equal(trust.found(7, 1), false)
    assert.equal(trust.suspect, false)
    assert.equal(trust.found(8, 2), true)
    assert.equal(trust.found(9, 3), false, 'it is known')
    assert.equal(trust.suspectSince, 2)
    assert.equal(trust.passed(0), false)
    assert.equal(trust.suspect, true)
  })

  it('comes back with the first whole pass of a life that finds nothing bad, and with no later one', () => {
    const trust = new VolumeTrust(5, 8)
    assert(trust.suspect && trust.onProbation)
    assert.equal(trust.passed(0), true)
    assert.equal(trust.suspect, false)

    const bad = new VolumeTrust(5, 8)
    assert.equal(bad.passed(1), false)
    assert.equal(bad.onProbation, false)
    assert.equal(bad.passed(0), false)
    assert.equal(bad.suspect, true)
  })
})
