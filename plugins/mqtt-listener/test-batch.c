#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "batch.h"
#include "message.h"

static bool add(struct batch *batch, const char *device, const char *module, const char *output,
                const char *body, void *owner)
{
    Bus__Property property = BUS__PROPERTY__INIT, *properties[] = { &property };
    Bus__Message m = BUS__MESSAGE__INIT;

    property.name = (char *)MESSAGE_OUTPUT_NAME;
    property.value = (char *)output;
    m.device_id = (char *)device;
    m.module_id = (char *)module;
    m.n_system = output ? 1 : 0;
    m.system = properties;
    m.body = (ProtobufCBinaryData){ strlen(body), (uint8_t *)body };
    return batch_add(batch, &m, bus__message__get_packed_size(&m), owner);
}

static void assert_item(const struct batch *batch, size_t index, const char *device,
                        const char *module, const char *output, const char *body)
{
    const Bus__PublishItem *item = batch->items[index];
    Bus__Message *m = bus__message__unpack(NULL, item->message.len, item->message.data);

    assert_string_equal(item->device_id, device);
    assert_string_equal(item->module_id, module);
    assert_string_equal(item->output_name, output);
    assert_non_null(m);
    assert_string_equal(m->device_id, device);
    assert_int_equal(m->body.len, strlen(body));
    assert_memory_equal(m->body.data, body, m->body.len);
    bus__message__free_unpacked(m, NULL);
}

static void test_items(void **state)
{
    _cleanup_(batch_freep) struct batch *batch = batch_new();

    add(batch, "a", "", NULL, "1", NULL);
    add(batch, "a", "", NULL, "2", NULL);
    add(batch, "a", "m", "out", "3", NULL);
    add(batch, "b", "", "out", "4", NULL); /* a device has no outputs */
    assert_int_equal(batch->count, 4);
    assert_int_equal(batch->share_count, 0);
    assert_item(batch, 0, "a", "", "", "1");
    assert_item(batch, 1, "a", "", "", "2");
    assert_item(batch, 2, "a", "m", "out", "3");
    assert_item(batch, 3, "b", "", "", "4");
    assert_ptr_equal(batch->items[0]->device_id, batch->items[1]->device_id);

    batch_reset(batch);
    assert_int_equal(batch->count, 0);
    assert_int_equal(batch->bytes, 0);
    add(batch, "c", "", NULL, "5", NULL);
    assert_item(batch, 0, "c", "", "", "5");
}

/* In a row they make one share; the owner counts its shares. */
static void test_shares(void **state)
{
    _cleanup_(batch_freep) struct batch *batch = batch_new();
    int a, b;

    assert_true(add(batch, "a", "", NULL, "", &a));
    assert_false(add(batch, "a", "", NULL, "", &a));
    assert_false(add(batch, "a", "", NULL, "", NULL)); /* QoS 0 */
    assert_false(add(batch, "a", "", NULL, "", &a));
    assert_true(add(batch, "b", "", NULL, "", &b));
    assert_true(add(batch, "a", "", NULL, "", &a));
    assert_int_equal(batch->share_count, 3);
    assert_ptr_equal(batch->shares[0].owner, &a);
    assert_int_equal(batch->shares[0].count, 3);
    assert_ptr_equal(batch->shares[1].owner, &b);
    assert_int_equal(batch->shares[1].count, 1);
    assert_ptr_equal(batch->shares[2].owner, &a);
    assert_int_equal(batch->shares[2].count, 1);
}

static void test_bounds(void **state)
{
    _cleanup_(batch_freep) struct batch *batch = batch_new();

    assert_true(batch_fits(batch, 1000000, 1, 10)); /* alone, whatever it is */
    add(batch, "a", "", NULL, "", NULL);
    assert_false(batch_fits(batch, 1, 1, 1000000));
    assert_true(batch_fits(batch, 1, 2, 1000000));
    assert_false(batch_fits(batch, 1000, 2, 1000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
