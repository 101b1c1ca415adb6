import assert from 'node:assert/strict'
import { PlaceWaiters } from '../../../src/transfer/place-waiters.ts'

const pending = { isWritten: () => false, flush: () => undefined }

describe('place waiters', () => {
  it('give the bytes of a verified block to those who take them, and let the others wait until they are recorded', async () => {
    const waiters = new PlaceWaiters()
    const taken: Array<[number, number[]]> = []
    const order: string[] = []
    const taking = waiters.wait([1, 2], { ...pending, take: (offset, bytes) => { taken.push([offset, [...bytes]]) } }).then(() => { order.push('taken') })
    const recorded = waiters.wait([2], pending).then(() => { order.push('recorded') })
    waiters.verified(2, 40, Uint8Array.of(4))
    waiters.verified(2, 40, Uint8Array.of(4)) // twice, when two peers sent it: taken once
    waiters.verified(1, 30, Uint8Array.of(3))
    await taking
    assert.deepEqual(taken, [[40, [4]], [30, [3]]])
    waiters.recorded(2)
    await recorded
    assert.deepEqual(order, ['taken', 'recorded'])
  })

  it('do without the bytes of what came another way', async () => {
    const waiters = new PlaceWaiters()
    const taking = waiters.wait([7], { ...pending, take: () => { assert.fail('they were not there to take') } })
    waiters.recorded(7)
    await taking
  })

  it('ask for a flush when all they wait for is written, before or after', async () => {
    const waiters = new PlaceWaiters()
    let flushes = 0
    const early = waiters.wait([1], { isWritten: place => place === 1, flush: () => { flushes++ } })
    assert.equal(flushes, 1)
    const late = waiters.wait([2, 3], { ...pending, flush: () => { flushes++ } })
    assert.equal(waiters.written(2), false)
    assert.equal(waiters.written(3), true)
    for (const place of [1, 2, 3]) waiters.recorded(place)
    await Promise.all([early, late])
    assert.equal(flushes, 1)
  })

  it('ask for a flush when the last of what is not written was taken', async () => {
    const waiters = new PlaceWaiters()
    let flushes = 0
    const taking = waiters.wait([1, 2], { isWritten: place => place === 1, flush: () => { flushes++ }, take: () => undefined })
    waiters.verified(2, 0, Uint8Array.of(1))
    assert.equal(flushes, 1)
    waiters.recorded(1)
    await taking
  })

  it('are told when it ends, and nothing is taken for who has left', async () => {
    const waiters = new PlaceWaiters()
    const leaving = new AbortController()
    const left = waiters.wait([1], { ...pending, signal: leaving.signal, take: () => { assert.fail('it has left') } })
    const rest = waiters.wait([1, 2], pending)
    leaving.abort(new Error('enough'))
    await assert.rejects(left, { name: 'AbortError' })
    waiters.verified(1, 0, Uint8Array.of(1))
    waiters.rejectAll(new Error('over'))
    await assert.rejects(rest, /over/)
  })
})
