import assert from 'node:assert/strict'
import { diskError, volumeAtFault } from '../../../src/storage/disk-errors.ts'

/** As Node throws it. */
function failure (code: string, syscall: string): Error {
  return Object.assign(new Error(`${code}: planted, ${syscall}`), { code, syscall })
}

describe('disk errors', () => {
  const blame = (code: string, syscall: string): [boolean, boolean] => {
    const thrown = failure(code, syscall)
    return [volumeAtFault(thrown), volumeAtFault(diskError(thrown, 'cannot write'))]
  }

  for (const code of ['EIO', 'ENODATA', 'ETIMEDOUT', 'EREMOTEIO', 'EILSEQ', 'ENODEV', 'Unknown system error -67', 'Unknown system error -52']) {
    it(`${code} of a write is the volume's fault, and so is whatever a sync says`, () => {
      assert.deepEqual([blame(code, 'write'), blame(code, 'fdatasync'), blame('EINVAL', 'fsync')], [[true, true], [true, true], [true, true]])
    })
  }

  it('of this process or of another call are not', () => {
    for (const [code, syscall] of [['EMFILE', 'open'], ['ENODEV', 'open'], ['ENODATA', 'read'], ['EINVAL', 'write'], ['EBADF', 'write'], ['EACCES', 'open']] as const) {
      assert.deepEqual(blame(code, syscall), [false, false], `${code} of ${syscall}`)
    }
  })
})
