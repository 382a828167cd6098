/* The other half of interop/srtp: libsrtp, driven by lines of hexadecimal digits.
 *
 *   libsrtp_peer open < LINES   opens our packets; each is given with one bit changed, as it is, and again
 *   libsrtp_peer seal < LINES   seals by plan and prints the lines with the sealed packet appended
 *
 * The lines are described in crates/keyfall-plane/examples/interop_srtp.rs.
 */
#include <srtp2/srtp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_KEYS = SRTP_MAX_NUM_MASTER_KEYS, MAX_PACKET = 4096, MAX_LINE = 32768, MKI_LEN = 14 };

static unsigned char key_octets[MAX_KEYS][SRTP_MAX_KEY_LEN];
static unsigned char mki_octets[MAX_KEYS][MKI_LEN];
static char mki_text[MAX_KEYS][2 * MKI_LEN + 1];
static srtp_master_key_t keys[MAX_KEYS];
static unsigned long key_count;
static srtp_policy_t policy;
static srtp_t session;
static int with_mki;
static long line_number;

static void fail(const char *what, int status)
{
    fprintf(stderr, "libsrtp_peer: line %ld: %s (libsrtp status %d)\n", line_number, what, status);
    exit(1);
}

static int unhex(const char *digits, unsigned char *out, int room)
{
    int len = (int)strlen(digits) / 2;
    if (len > room)
        fail("too long", 0);
    for (int i = 0; i < len; i++) {
        unsigned octet;
        if (sscanf(digits + 2 * i, "%2x", &octet) != 1)
            fail("not hexadecimal", 0);
        out[i] = (unsigned char)octet;
    }
    return len;
}

static void start_stream(const char *suite, const char *ssrc)
{
    if (session != NULL && srtp_dealloc(session) != srtp_err_status_ok)
        fail("srtp_dealloc", 0);
    session = NULL;
    key_count = 0;
    memset(&policy, 0, sizeof policy);
    if (strcmp(suite, "AEAD_AES_256_GCM") == 0) {
        srtp_crypto_policy_set_aes_gcm_256_16_auth(&policy.rtp);
        srtp_crypto_policy_set_aes_gcm_256_16_auth(&policy.rtcp);
    } else if (strcmp(suite, "AEAD_AES_128_GCM") == 0) {
        srtp_crypto_policy_set_aes_gcm_128_16_auth(&policy.rtp);
        srtp_crypto_policy_set_aes_gcm_128_16_auth(&policy.rtcp);
    } else if (strcmp(suite, "AES_CM_128_HMAC_SHA1_80") == 0) {
        srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&policy.rtp);
        srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&policy.rtcp);
    } else {
        fail("unknown suite", 0);
    }
    policy.ssrc.type = ssrc_specific;
    policy.ssrc.value = (unsigned)strtoul(ssrc, NULL, 16);
    policy.window_size = 1024;
}

static void add_key(const char *mki, const char *octets)
{
    if (key_count == MAX_KEYS)
        fail("more master keys than libsrtp takes", 0);
    unhex(octets, key_octets[key_count], SRTP_MAX_KEY_LEN);
    with_mki = strcmp(mki, "-") != 0;
    keys[key_count].key = key_octets[key_count];
    keys[key_count].mki_id = NULL;
    keys[key_count].mki_size = 0;
    if (with_mki) {
        keys[key_count].mki_id = mki_octets[key_count];
        keys[key_count].mki_size = (unsigned)unhex(mki, mki_octets[key_count], MKI_LEN);
        strcpy(mki_text[key_count], mki);
    }
    key_count++;
}

/* The session is made with the first packet, when all its keys are known. */
static void need_session(void)
{
    static srtp_master_key_t *list[MAX_KEYS];
    if (session != NULL)
        return;
    for (unsigned long i = 0; i < key_count; i++)
        list[i] = &keys[i];
    policy.keys = list;
    policy.num_master_keys = key_count;
    srtp_err_status_t status = srtp_create(&session, &policy);
    if (status != srtp_err_status_ok)
        fail("srtp_create", status);
}

static unsigned key_index(const char *mki)
{
    if (!with_mki)
        return 0;
    for (unsigned i = 0; i < key_count; i++)
        if (strcmp(mki_text[i], mki) == 0)
            return i;
    fail("no such MKI", 0);
    return 0;
}

static srtp_err_status_t unprotect(int rtcp, const unsigned char *sealed, int *len, unsigned char *out)
{
    memcpy(out, sealed, (size_t)*len);
    return rtcp ? srtp_unprotect_rtcp_mki(session, out, len, (unsigned)with_mki)
                : srtp_unprotect_mki(session, out, len, (unsigned)with_mki);
}

static void open_packet(int rtcp, const char *plain_text, const char *sealed_text)
{
    static unsigned char plain[MAX_PACKET], sealed[MAX_PACKET], work[MAX_PACKET];
    int plain_len = unhex(plain_text, plain, MAX_PACKET);
    int sealed_len = unhex(sealed_text, sealed, MAX_PACKET);
    srtp_err_status_t status;
    int len = sealed_len;

    /* Behind the fixed header, so that it stays a packet of this stream. */
    int place = 12 + (int)(line_number % (sealed_len - 12));
    sealed[place] ^= 1;
    if (unprotect(rtcp, sealed, &len, work) == srtp_err_status_ok)
        fail("opened with one bit changed", 0);
    sealed[place] ^= 1;

    len = sealed_len;
    status = unprotect(rtcp, sealed, &len, work);
    if (status != srtp_err_status_ok)
        fail("did not open", status);
    if (len != plain_len || memcmp(work, plain, (size_t)len) != 0)
        fail("opened to something else", 0);

    len = sealed_len;
    status = unprotect(rtcp, sealed, &len, work);
    if (status != srtp_err_status_replay_fail)
        fail("a replay was not refused", status);
}

static void seal_packet(int rtcp, const char *mki, const char *plain_text)
{
    static unsigned char packet[MAX_PACKET];
    int len = unhex(plain_text, packet, MAX_PACKET - SRTP_MAX_TRAILER_LEN - 4);
    unsigned index = key_index(mki);
    srtp_err_status_t status =
        rtcp ? srtp_protect_rtcp_mki(session, packet, &len, (unsigned)with_mki, index)
             : srtp_protect_mki(session, packet, &len, (unsigned)with_mki, index);
    if (status != srtp_err_status_ok)
        fail("was not sealed", status);
    printf("%s %s %s ", rtcp ? "rtcp" : "rtp", mki, plain_text);
    for (int i = 0; i < len; i++)
        printf("%02x", packet[i]);
    printf("\n");
}

int main(int argc, char **argv)
{
    static char line[MAX_LINE], copy[MAX_LINE];
    long rtp = 0, rtcp = 0;
    int opening = argc == 2 && strcmp(argv[1], "open") == 0;

    if (!opening && (argc != 2 || strcmp(argv[1], "seal") != 0)) {
        fprintf(stderr, "usage: libsrtp_peer open|seal\n");
        return 2;
    }
    if (srtp_init() != srtp_err_status_ok)
        fail("srtp_init", 0);
    while (fgets(line, sizeof line, stdin) != NULL) {
        char *words[4] = {0};
        int count = 0;

        line_number++;
        line[strcspn(line, "\n")] = 0;
        strcpy(copy, line);
        for (char *word = strtok(copy, " "); word != NULL && count < 4; word = strtok(NULL, " "))
            words[count++] = word;
        if (count == 3 && strcmp(words[0], "stream") == 0) {
            start_stream(words[1], words[2]);
        } else if (count == 3 && strcmp(words[0], "key") == 0) {
            add_key(words[1], words[2]);
        } else if (count == (opening ? 4 : 3) && strncmp(words[0], "rt", 2) == 0) {
            int is_rtcp = strcmp(words[0], "rtcp") == 0;
            need_session();
            if (opening)
                open_packet(is_rtcp, words[2], words[3]);
            else
                seal_packet(is_rtcp, words[1], words[2]);
            *(is_rtcp ? &rtcp : &rtp) += 1;
            continue;
        } else {
            fail("not understood", 0);
        }
        if (!opening)
            printf("%s\n", line);
    }
    if (opening)
        printf("%ld SRTP and %ld SRTCP packets\n", rtp, rtcp);
    return rtp + rtcp > 0 ? 0 : 1;
}
